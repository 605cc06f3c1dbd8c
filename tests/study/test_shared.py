"""The shared storage: what it holds, and when that is removed."""

from __future__ import annotations

import pytest
from commands import PATIENCE, wait
from rows import write_row
from running import LONG, rows, start, trials, write
from test_sampling import config
from test_table import row

from ofbnas.study.cluster.sampling import StudySearch
from ofbnas.study.cluster.shared_storage import (
    SharedStorage,
    upload_checkpoints,
    upload_results,
    working_folder,
)
from ofbnas.study.trial import checkpoint_folder
from ofbnas.table.store import read_row


def test_a_relative_folder_is_the_same_from_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        SharedStorage("shared").address
        == SharedStorage(f"file://{tmp_path}/shared").address
        == f"{tmp_path}/shared"
    )


def test_checkpoints_stay_until_their_trial_has_its_row(tmp_path):
    """Also if its process ended without one, as on a full disk, or if the driver was killed."""
    folder = tmp_path / "study"
    study = config(sampler="random")
    resources = study.resources.model_copy(update={"storage_path": str(tmp_path / "shared")})
    study = study.model_copy(update={"resources": resources})
    search = StudySearch(study, folder)
    for number in range(2):
        search.suggest(str(number))
        with working_folder(folder, search.storage, number) as place:
            checkpoints = checkpoint_folder(place, number)
            checkpoints.mkdir(parents=True)
            (checkpoints / "search.pt").write_text(f"{number}")
            upload_checkpoints(place, search.storage, number)

    def kept(number: int) -> bool:
        with working_folder(folder, search.storage, number) as place:
            return (checkpoint_folder(place, number) / "search.pt").is_file()

    search.on_trial_complete("0")
    assert search.row(0) is None and kept(0) and kept(1)
    with working_folder(folder, search.storage, 0) as place:
        write_row(place, row(0))
        upload_results(place, search.storage, 0)
    assert read_row(folder, 0) is None and search.storage.results() == [0] and kept(0)
    write_row(folder, row(1, status="pruned", search_epochs=4))
    (folder / ".incoming-x").mkdir()
    again = StudySearch(study, folder)
    assert read_row(folder, 0).status == "complete" and not again.storage.results()
    assert not kept(0) and not kept(1)
    assert not list(folder.glob(".incoming-*"))
    assert [trial.state.name for trial in again.study.trials] == ["COMPLETE", "PRUNED"]


@pytest.mark.slow
def test_a_storage_that_is_gone_ends_the_study_and_fails_no_trial(tmp_path):
    shared, out = tmp_path / "shared", tmp_path / "out"
    resources = {"storage_path": str(shared), "max_concurrent": 1, "max_failures": 0}
    file = write(tmp_path, **LONG, resources=resources)
    study = start(file, out)
    wait(lambda: any(shared.rglob("search.pt")))
    # Only the driver sees the study's folder; it writes the history that the trial reports.
    wait(lambda: (out / "history" / "trial-00000.parquet").is_file())
    shared.rename(tmp_path / "unmounted")
    shared.touch()
    _, err = study.communicate(timeout=PATIENCE)
    assert study.returncode == 1 and "Traceback" not in err, err
    assert f"resources.storage_path {shared}" in err.splitlines()[-1]
    assert err.splitlines()[-1].endswith("; the same command resumes")
    assert [(trial.number, trial.state.name) for trial in trials(out)] == [(0, "RUNNING")]
    assert rows(out) == 0

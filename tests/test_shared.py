"""The place that all nodes reach: what lies there, and when it goes."""

from __future__ import annotations

from test_sampling import config
from test_table import row

from ofbnas.sweep.sampling import StudySearch
from ofbnas.sweep.shared import SharedStorage, deliver, keep, workplace
from ofbnas.table import read_row, write_row
from ofbnas.trial import checkpoint_folder


def test_a_relative_folder_is_the_same_from_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert SharedStorage("shared").address == SharedStorage(f"file://{tmp_path}/shared").address == f"{tmp_path}/shared"


def test_checkpoints_stay_until_their_trial_has_its_row(tmp_path):
    """Also when its process ended without one, as on a full disk, and when a driver was killed before it said so."""
    folder = tmp_path / "study"
    study = config(sampler="random")
    resources = study.resources.model_copy(update={"storage_path": str(tmp_path / "shared")})
    study = study.model_copy(update={"resources": resources})
    search = StudySearch(study, folder)
    for number in range(2):
        search.suggest(str(number))
        with workplace(folder, search.storage, number) as place:
            checkpoints = checkpoint_folder(place, number)
            checkpoints.mkdir(parents=True)
            (checkpoints / "search.pt").write_text(f"{number}")
            keep(place, search.storage, number)

    def kept(number: int) -> bool:
        with workplace(folder, search.storage, number) as place:
            return (checkpoint_folder(place, number) / "search.pt").is_file()

    search.on_trial_complete("0")
    assert search.row(0) is None and kept(0) and kept(1)
    with workplace(folder, search.storage, 0) as place:
        write_row(place, row(0))
        deliver(place, search.storage, 0)
    assert read_row(folder, 0) is None and search.storage.results() == [0] and kept(0)
    write_row(folder, row(1, status="pruned", search_epochs=4))
    (folder / ".incoming-x").mkdir()
    again = StudySearch(study, folder)
    assert read_row(folder, 0)["status"] == "complete" and not again.storage.results()
    assert not kept(0) and not kept(1)
    assert not list(folder.glob(".incoming-*"))
    assert [trial.state.name for trial in again.study.trials] == ["COMPLETE", "PRUNED"]

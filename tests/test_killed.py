"""Studies and trials that are killed, and what is left of them: with real processes."""

from __future__ import annotations

import os
import re
import shutil
import signal
from pathlib import Path

import pandas as pd
import pytest
from commands import PATIENCE, ofbnas, processes, wait
from running import LONG, ONE_OF_TWO, STUDY, finish, kill_everything, rows, start, trials, write

from ofbnas.table import read_table

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, Path]:
    """A study's file, and its folder, where it is finished."""
    place = tmp_path_factory.mktemp("finished")
    finish(write(place), place / "out")
    return place / "small.yaml", place / "out"


def test_a_killed_study_goes_on_where_it_stopped(tmp_path):
    file, out = write(tmp_path, **LONG), tmp_path / "out"
    study = start(file, out)
    wait(lambda: rows(out) >= 1)
    wait(lambda: any(t.state.name == "RUNNING" for t in trials(out)))
    kill_everything(study)
    done = {
        p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in (out / "architectures").iterdir() if p.suffix == ".parquet"
    }
    left = trials(out)
    assert 1 <= len(done) < 3 and any(t.state.name == "RUNNING" for t in left)

    finish(file, out)
    assert {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in done} == done, "finished trials were not run again"
    assert not (out / "checkpoints").exists()
    after = trials(out)
    assert [t.state.name for t in after] == ["COMPLETE"] * 3, "none is running, none was asked for twice"
    assert [t.params for t in after[: len(left)]] == [t.params for t in left]
    table = read_table(out)
    assert table["trial"].tolist() == [0, 1, 2]
    assert [t.values for t in after] == [list(v) for v in table[["val_top1", "gmacs"]].to_numpy()]


def test_a_trial_killed_between_row_and_journal_is_told_from_its_row(finished, tmp_path):
    """The journal loses its last record, as when the driver dies right after a trial wrote its row."""
    file, out = finished[0], Path(shutil.copytree(finished[1], tmp_path / "out"))
    journal = out / "journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    states = [i for i, line in enumerate(lines) if b'"state":' in line or b'"state": ' in line]
    journal.write_bytes(b"".join(line for i, line in enumerate(lines) if i != states[-1]))
    assert [t.state.name for t in trials(out)].count("RUNNING") == 1
    err = finish(file, out)
    assert "is finished" in err
    assert [t.state.name for t in trials(out)] == ["COMPLETE"] * 3


def test_a_trial_killed_while_it_was_drawn_is_drawn_to_the_end(finished, tmp_path):
    """The journal ends right after a trial was made, before its values were."""
    file, out = finished[0], Path(shutil.copytree(finished[1], tmp_path / "out"))
    last = out / "architectures" / "trial-00002.parquet"
    journal = out / "journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    made = [i for i, line in enumerate(lines) if b'"op_code":4' in line.replace(b" ", b"")]
    journal.write_bytes(b"".join(lines[: made[-1] + 1]))
    last.unlink()
    assert [(t.state.name, len(t.params)) for t in trials(out)][-1] == ("RUNNING", 0)
    finish(file, out)
    assert [(t.state.name, len(t.params)) for t in trials(out)] == [("COMPLETE", 1)] * 3
    assert len(read_table(out)) == 3


def test_a_study_has_one_driver_and_ctrl_c_leaves_one_that_goes_on(tmp_path):
    file, out = write(tmp_path, **LONG), tmp_path / "out"
    study = start(file, out)
    wait(lambda: (out / "journal.log").is_file())
    refused = ofbnas("study", "run", file, "--output", out)
    assert refused.returncode == 2 and "another process runs this study" in refused.stderr
    wait(lambda: rows(out) >= 1)
    os.kill(study.pid, signal.SIGINT)
    _, err = study.communicate(timeout=PATIENCE)
    assert study.returncode == 130
    assert "the same command goes on" in err and "Traceback" not in err
    finish(file, out)
    assert [t.state.name for t in trials(out)] == ["COMPLETE"] * 3


@pytest.mark.parametrize("max_failures", [0, 2], ids=["fails", "starts again"])
def test_a_trial_whose_process_is_killed_is_started_again_or_fails(tmp_path, max_failures):
    resources = {"max_concurrent": 1, "max_failures": max_failures}
    file = write(tmp_path, **LONG | {"sweep": STUDY["sweep"] | {"n_trials": 2}, "resources": resources})
    table = finish_when_killed(file, tmp_path / "out", "ray::ImplicitFunc")
    if max_failures:
        assert table["status"].tolist() == ["complete", "complete"]
        assert re.search(r"trial-00000: search goes on after epoch \d", (tmp_path / "out" / "study.log").read_text())
    else:
        assert table["status"].tolist() == ["failed", "complete"]
        assert table["reason"][0]
        assert [t.state.name for t in trials(tmp_path / "out")] == ["FAIL", "COMPLETE"]


def test_trials_of_two_workers_survive_the_loss_of_one_and_are_stopped_early(tmp_path):
    resources = {"cpus_per_trial": 2, "workers_per_trial": 2, "max_concurrent": 1}
    file = write(tmp_path, **ONE_OF_TWO, resources=resources)
    assert finish_when_killed(file, tmp_path / "out", "ray::_Rank")["status"].tolist() == ["complete", "pruned"]
    assert re.search(r"trial-00000: search goes on after epoch \d", (tmp_path / "out" / "study.log").read_text())


def finish_when_killed(file: Path, out: Path, worker: str) -> pd.DataFrame:
    """The table of a study, processes of whose first trial were killed."""
    study = start(file, out)
    wait(lambda: (out / "checkpoints" / "trial-00000" / "search.pt").is_file())
    for pid in processes(worker, study.pid):
        os.kill(pid, signal.SIGKILL)
    _, err = study.communicate(timeout=PATIENCE)
    assert study.returncode == 0, err
    return read_table(out)

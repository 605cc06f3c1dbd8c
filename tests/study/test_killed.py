"""Studies and trials that are killed and resumed, with real processes."""

from __future__ import annotations

import os
import re
import shutil
import signal
from pathlib import Path

import pandas as pd
import pytest
from commands import PATIENCE, ofbnas, processes, wait
from running import (
    LONG,
    ONE_AT_A_TIME,
    STUDY,
    epochs_searched,
    finish,
    rows,
    start,
    trials,
    write,
    written,
)

from ofbnas.config.study_file import load_study
from ofbnas.table.store import read_table

pytestmark = pytest.mark.slow


def test_a_study_of_two_workers_survives_a_lost_worker_and_ctrl_c_and_has_one_driver(tmp_path):
    """Trials take both CPUs, so they run one at a time, and trials are left when the first has ended."""
    two_workers = {"cpus_per_trial": 2, "workers_per_trial": 2}
    two_trials = STUDY["sweep"] | {"n_trials": 2}
    file = write(tmp_path, **LONG, sweep=two_trials, resources=two_workers)
    out = tmp_path / "out"
    study = start(file, out)
    wait(lambda: (out / "journal.log").is_file())
    refused = ofbnas("study", "run", file, "--output", out)
    assert refused.returncode == 2 and "another process runs this study" in refused.stderr
    wait(lambda: epochs_searched(out) > 0)
    kill(processes("ray::_Rank", study.pid))
    wait(lambda: rows(out) >= 1 and len(trials(out)) > 1)
    resumed = r"trial-00000: search resumes after epoch \d"
    assert re.search(resumed, (out / "study.log").read_text())
    os.kill(study.pid, signal.SIGINT)
    _, err = study.communicate(timeout=PATIENCE)
    assert study.returncode == 130
    assert "the same command resumes" in err and "Traceback" not in err
    done, left = written(out), trials(out)
    assert len(done) == 1 and left[-1].state.name == "RUNNING"

    finish(file, out)
    assert written(out).items() >= done.items(), "finished trials were not run again"
    assert not (out / "checkpoints").exists()
    after = trials(out)
    assert [t.state.name for t in after] == ["COMPLETE"] * 2, (
        "none is running, none was asked for twice"
    )
    assert [t.params for t in after] == [t.params for t in left]
    table = read_table(out)
    assert table["trial"].tolist() == [0, 1]
    assert [t.values for t in after] == [list(v) for v in table[["val_top1", "gmacs"]].to_numpy()]


def test_a_trial_killed_between_row_and_journal_is_reported_from_its_row(finished, tmp_path):
    """The journal loses its last record, as when the driver dies right after a trial wrote its row."""
    out = Path(shutil.copytree(finished / "out", tmp_path / "out"))
    journal = out / "journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    states = [i for i, line in enumerate(lines) if b'"state":' in line or b'"state": ' in line]
    journal.write_bytes(b"".join(line for i, line in enumerate(lines) if i != states[-1]))
    assert [t.state.name for t in trials(out)].count("RUNNING") == 1
    done = ofbnas("study", "run", finished / "small.yaml", "--output", out)
    assert done.returncode == 0 and "is finished" in done.stderr
    assert [t.state.name for t in trials(out)] == ["COMPLETE"] * 3


def test_damaged_files_are_set_aside_and_what_is_lost_is_run_again(finished, tmp_path):
    """An empty row, a damaged history and empty settings, as a disk that lies about syncing leaves them.

    The journal ends within a record, after another trial was created, before its values were drawn.
    """
    file, out = finished / "small.yaml", Path(shutil.copytree(finished / "out", tmp_path / "out"))
    before, values = read_table(out), [t.params for t in trials(out)]
    (out / "architectures" / "trial-00001.parquet").write_bytes(b"")
    (out / "history" / "trial-00001.parquet").write_bytes(b"PAR1 damaged PAR1")
    (out / "study.yaml").write_bytes(b"")
    (out / "subnets" / ".writing-half").mkdir()
    (out / "architectures" / "trial-00002.parquet").unlink()
    journal = out / "journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    made = [i for i, line in enumerate(lines) if b'"op_code":4' in line.replace(b" ", b"")]
    journal.write_bytes(b"".join(lines[: made[-1] + 1]) + b'{"op_code": 4, "worker' + b"\0" * 40)
    refused = ofbnas("front", "show", out)
    assert refused.returncode == 2 and "trial-00001.parquet" in refused.stderr

    err = finish(file, out)
    for name in ("architectures/trial-00001.parquet", "history/trial-00001.parquet", "study.yaml"):
        assert f"{out / name}" in err and "is created anew" in err
        assert len(list((out / name).parent.glob(f"{Path(name).name}.damaged-*"))) == 1
    assert not list(out.rglob(".writing-*"))
    after = read_table(out)
    assert after["status"].tolist() == ["complete"] * 3 and after["weights"].notna().all()
    kept = ["trial", "arch_id", "top1"]
    pd.testing.assert_frame_equal(after.loc[:1, kept], before.loc[:1, kept])
    again = trials(out)
    assert [t.state.name for t in again] == ["COMPLETE"] * 3
    assert [t.params for t in again[:2]] == values[:2]
    assert again[2].params.keys() == values[2].keys()
    assert load_study(out / "study.yaml") == load_study(file)


def test_trials_whose_processes_die_or_stall_are_started_again_then_fail_and_the_study_goes_on(
    tmp_path,
):
    """The first trial's process is killed twice, the second's is stopped twice; the third is let alone."""
    limits = ONE_AT_A_TIME | {"max_failures": 1, "stall_factor": 2, "stall_floor": 15}
    file, out = write(tmp_path, **LONG, resources=limits), tmp_path / "out"
    study, log = start(file, out), out / "study.log"
    wait(lambda: epochs_searched(out) > 0)  # without any epoch, the driver could not compare later
    kill(processes("ray::ImplicitFunc", study.pid))
    wait(lambda: re.search(r"trial-00000: search resumes after epoch \d", log.read_text()))
    kill(processes("ray::ImplicitFunc", study.pid))

    stopped: set[int] = set()
    for _ in range(2):
        wait(lambda: log.read_text().count("trial 1 runs on") > len(stopped))
        (worker,) = set(processes("ray::ImplicitFunc", study.pid)) - stopped
        os.kill(worker, signal.SIGSTOP)  # it stops answering, but its connections stay open
        stopped.add(worker)
    _, err = study.communicate(timeout=PATIENCE)
    assert study.returncode == 0, err
    table = read_table(out)
    assert table["status"].tolist() == ["failed", "failed", "complete"]
    died, stalled, _ = table["reason"]
    assert died and "no epoch" not in died
    assert re.fullmatch(r"no epoch for \d+ s, \d+ times the usual [\d.]+ s", stalled)
    assert [t.state.name for t in trials(out)] == ["FAIL", "FAIL", "COMPLETE"]
    assert err.count("trial 1 starts again: no epoch for") == 1
    assert not any(Path(f"/proc/{worker}").exists() for worker in stopped)


def kill(pids: list[int]) -> None:
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)

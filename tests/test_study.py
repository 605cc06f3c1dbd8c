"""Studies that are killed, trials that fail, workers that die: with real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import optuna
import pytest
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from test_cli import OFBNAS, STUDY

import ofbnas
from ofbnas.study_file import load_study

pytestmark = pytest.mark.slow


def write(place: Path, **changes) -> Path:
    (place / "small.yaml").write_text(yaml.safe_dump(STUDY | changes))
    return place / "small.yaml"


def start(file: Path, out: Path) -> subprocess.Popen[str]:
    """The study as a process with a session of its own."""
    return subprocess.Popen(
        [OFBNAS, "study", "run", file, "--output", out], stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def rows(out: Path) -> int:
    return len(list((out / "architectures").glob("trial-*.parquet")))


def wait(condition, seconds=300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def processes(word: str, ancestor: int | None = None) -> list[int]:
    """Processes with a word in their command line, descending from an ancestor where one is given."""
    parents, found = {}, []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            pid, line = int(folder.name), (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            parents[pid] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if word in line:
            found.append(pid)

    def descends(pid: int) -> bool:
        while pid and pid != ancestor:
            pid = parents.get(pid, 0)
        return pid == ancestor

    return [pid for pid in found if ancestor is None or descends(pid)]


def kill_everything(study: subprocess.Popen[str]) -> None:
    for pid in [study.pid, *processes("", study.pid)]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    study.communicate()


def trials(out: Path) -> list[optuna.trial.FrozenTrial]:
    storage = JournalStorage(JournalFileBackend(str(out / "journal.log")))
    return optuna.load_study(study_name="small", storage=storage).trials


def finish(file: Path, out: Path, code: int = 0) -> str:
    study = start(file, out)
    _, err = study.communicate(timeout=300)
    assert study.returncode == code, err
    return err


LONG = {"search": STUDY["search"] | {"epochs": 40}, "sweep": STUDY["sweep"] | {"n_trials": 4}}


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
    assert 1 <= len(done) < 4 and any(t.state.name == "RUNNING" for t in left)

    finish(file, out)
    assert {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in done} == done, "finished trials were not run again"
    assert not (out / "checkpoints").exists()
    after = trials(out)
    assert [t.state.name for t in after] == ["COMPLETE"] * 4, "none is running, none was asked for twice"
    assert [t.params for t in after[: len(left)]] == [t.params for t in left]
    table = ofbnas.read_table(out)
    assert table["trial"].tolist() == [0, 1, 2, 3]
    assert [t.values for t in after] == [list(v) for v in table[["val_top1", "gmacs"]].to_numpy()]


def test_a_trial_killed_between_row_and_journal_is_told_from_its_row(tmp_path):
    """The journal loses its last record, as when the driver dies right after a trial wrote its row."""
    file, out = write(tmp_path), tmp_path / "out"
    finish(file, out)
    journal = out / "journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    states = [i for i, line in enumerate(lines) if b'"state":' in line or b'"state": ' in line]
    journal.write_bytes(b"".join(line for i, line in enumerate(lines) if i != states[-1]))
    assert [t.state.name for t in trials(out)].count("RUNNING") == 1
    err = finish(file, out)
    assert "is finished" in err
    assert [t.state.name for t in trials(out)] == ["COMPLETE"] * 3


def test_a_trial_killed_while_it_was_drawn_is_drawn_to_the_end(tmp_path):
    """The journal ends right after a trial was made, before its values were."""
    file, out = write(tmp_path), tmp_path / "out"
    finish(file, out)
    last = out / "architectures" / "trial-00002.parquet"
    journal = out / "journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    made = [i for i, line in enumerate(lines) if b'"op_code":4' in line.replace(b" ", b"")]
    journal.write_bytes(b"".join(lines[: made[-1] + 1]))
    last.unlink()
    assert [(t.state.name, len(t.params)) for t in trials(out)][-1] == ("RUNNING", 0)
    finish(file, out)
    assert [(t.state.name, len(t.params)) for t in trials(out)] == [("COMPLETE", 1)] * 3
    assert len(ofbnas.read_table(out)) == 3


def test_ctrl_c_leaves_a_study_that_goes_on(tmp_path):
    file, out = write(tmp_path, **LONG), tmp_path / "out"
    study = start(file, out)
    wait(lambda: rows(out) >= 1)
    os.kill(study.pid, signal.SIGINT)
    _, err = study.communicate(timeout=60)
    assert study.returncode == 130
    assert "the same command goes on" in err and "Traceback" not in err
    finish(file, out)
    assert [t.state.name for t in trials(out)] == ["COMPLETE"] * 4


def test_a_study_has_one_driver(tmp_path):
    file, out = write(tmp_path, **LONG), tmp_path / "out"
    study = start(file, out)
    wait(lambda: (out / "journal.log").is_file())
    assert "another process runs this study" in finish(file, out, code=2)
    kill_everything(study)


def test_failing_trials_are_rows_with_a_reason_and_the_others_go_on(tmp_path):
    params = {"search.lr": {"choices": [2e-3, 1e30]}, "search.clip_grad": {"choices": [1.0, None]}}
    file = write(tmp_path, seed=2, sweep=STUDY["sweep"] | {"n_trials": 6, "params": params})
    finish(file, tmp_path / "out")
    table = ofbnas.read_table(tmp_path / "out")
    bad = table["hp.search.lr"] == 1e30
    assert 0 < bad.sum() < 6
    assert (table["status"] == bad.map({True: "failed", False: "complete"})).all()
    assert table["reason"][bad].str.contains("NotFiniteError: .* is (?:nan|inf)").all()
    states = [t.state.name for t in trials(tmp_path / "out")]
    assert states == bad.map({True: "FAIL", False: "COMPLETE"}).tolist()
    assert "trial" in (tmp_path / "out" / "study.log").read_text()


def test_a_study_of_failures_exits_with_1(tmp_path):
    file = write(tmp_path, search=STUDY["search"] | {"lr": 1e30, "clip_grad": None})
    assert "every trial failed" in finish(file, tmp_path / "out", code=1)
    shown = subprocess.run([OFBNAS, "front", "show", tmp_path / "out", "--json"], check=True, capture_output=True)
    assert json.loads(shown.stdout)["front"] == []
    shown = subprocess.run([OFBNAS, "front", "show", tmp_path / "out"], check=True, capture_output=True, text=True)
    assert "no row of" in shown.stdout


@pytest.mark.parametrize(
    ("max_failures", "workers", "killed"),
    [(0, 1, "ray::ImplicitFunc"), (2, 1, "ray::ImplicitFunc"), (2, 2, "ray::_Rank")],
    ids=["fails", "starts again", "starts again with another worker"],
)
def test_a_trial_whose_process_is_killed_is_started_again_or_fails(tmp_path, max_failures, workers, killed):
    resources = {"cpus_per_trial": workers, "workers_per_trial": workers, "max_concurrent": 1}
    file = write(
        tmp_path,
        search=LONG["search"],
        sweep=STUDY["sweep"] | {"n_trials": 2},
        resources=resources | {"max_failures": max_failures},
    )
    out = tmp_path / "out"
    study = start(file, out)
    wait(lambda: (out / "checkpoints" / "trial-00000" / "search.pt").is_file())
    for pid in processes(killed, study.pid):
        os.kill(pid, signal.SIGKILL)
    _, err = study.communicate(timeout=300)
    assert study.returncode == 0, err
    table = ofbnas.read_table(out)
    if max_failures:
        assert table["status"].tolist() == ["complete", "complete"]
        assert re.search(r"trial-00000: search goes on after epoch \d", (out / "study.log").read_text())
    else:
        assert table["status"].tolist() == ["failed", "complete"]
        assert table["reason"][0]
        assert [t.state.name for t in trials(out)] == ["FAIL", "COMPLETE"]


def test_a_study_is_extended_by_more_trials_more_epochs_and_other_objectives(tmp_path):
    file, out = write(tmp_path, sweep=STUDY["sweep"] | {"n_trials": 1}), tmp_path / "out"
    finish(file, out)
    objectives = "[{metric: top1, direction: maximize}, {metric: params, direction: minimize}]"
    settings = ["sweep.n_trials=2", "search.epochs=6", f"objectives={objectives}"]
    asked = [part for setting in settings for part in ("--set", setting)]
    done = subprocess.run([OFBNAS, "study", "run", file, "--output", out, *asked], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
    table = ofbnas.read_table(out)
    shares = table["hp.search.budget.gmacs_share"]
    assert len(shares) == 2 and shares[0] != shares[1], "a sampler started again does not repeat itself"
    assert table["search_epochs"].tolist() == [4, 6]
    assert [t.values for t in trials(out)] == [list(v) for v in table[["top1", "params"]].to_numpy()]
    assert load_study(out / "study.yaml").search.epochs == 6


def test_trials_are_stopped_early_and_a_killed_study_keeps_its_rungs(tmp_path):
    stopping = {"method": "front", "eta": 4, "first_rung": 1}
    file = write(
        tmp_path,
        search=STUDY["search"] | {"epochs": 20},
        sweep=STUDY["sweep"] | {"n_trials": 6, "early_stopping": stopping},
    )
    out = tmp_path / "out"
    study = start(file, out)
    wait(lambda: (out / "journal.log").is_file() and any("4" in t.user_attrs.get("rungs", {}) for t in trials(out)))
    kill_everything(study)
    left = {t.number: t.user_attrs["rungs"] for t in trials(out) if "rungs" in t.user_attrs}

    assert "were stopped early" in finish(file, out)
    after, table = trials(out), ofbnas.read_table(out)
    assert [t.state.name.lower() for t in after] == table["status"].tolist() and len(after) == 6
    for number, rungs in left.items():
        assert rungs.items() <= after[number].user_attrs["rungs"].items(), "on a CPU a rung reached again is the same"
    pruned = table["status"] == "pruned"
    assert 0 < pruned.sum() < 6
    assert table["search_epochs"].tolist() == [
        20 if t.state.name == "COMPLETE" else max(map(int, t.user_attrs["rungs"])) for t in after
    ]
    assert table["weights"].isna().tolist() == pruned.tolist() and not (out / "checkpoints").exists()
    assert not set(ofbnas.front(table)["trial"]) & set(table["trial"][pruned])
    assert json.loads(subprocess.run([OFBNAS, "study", "list", out, "--json"], check=True, capture_output=True).stdout)[
        0
    ]["pruned"] == int(pruned.sum())

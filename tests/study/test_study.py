"""Whole studies, with real processes: failing trials, extending, stopping early."""

from __future__ import annotations

import json

import pytest
from commands import ofbnas, process, wait
from running import STUDY, finish, kill_everything, start, trials, write

from ofbnas import front, read_history, read_table
from ofbnas.config.study_file import load_study

pytestmark = pytest.mark.slow


def test_failing_trials_are_rows_with_a_reason_and_the_others_continue(tmp_path):
    params = {"search.lr": {"choices": [2e-3, 1e30]}, "search.clip_grad": {"choices": [1.0, None]}}
    file = write(tmp_path, seed=2, sweep=STUDY["sweep"] | {"n_trials": 6, "params": params})
    finish(file, tmp_path / "out")
    table = read_table(tmp_path / "out")
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
    assert json.loads(ofbnas("front", "show", tmp_path / "out", "--json").stdout)["front"] == []
    assert "no row of" in ofbnas("front", "show", tmp_path / "out").stdout


def test_a_study_is_extended_by_more_trials_more_epochs_and_other_objectives(tmp_path):
    file, out = write(tmp_path, sweep=STUDY["sweep"] | {"n_trials": 1}), tmp_path / "out"
    finish(file, out)
    objectives = "[{metric: top1, direction: maximize}, {metric: params, direction: minimize}]"
    settings = ["sweep.n_trials=2", "search.epochs=6", f"objectives={objectives}"]
    settings.append("sweep.trackers=[tensorboard]")
    asked = [part for setting in settings for part in ("--set", setting)]
    done = process("study", "run", file, "--output", out, *asked)
    assert done.returncode == 0, done.stderr
    table = read_table(out)
    shares = table["hp.search.budget.gmacs_share"]
    assert len(shares) == 2 and shares[0] != shares[1], (
        "a sampler started again does not repeat itself"
    )
    assert table["search_epochs"].tolist() == [4, 6]
    assert [t.values for t in trials(out)] == [
        list(v) for v in table[["top1", "params"]].to_numpy()
    ]
    assert load_study(out / "study.yaml").search.epochs == 6
    assert list((out / "tensorboard").glob("trial-00001/events.*")), "trackers follow new trials"
    assert not (out / "tensorboard" / "trial-00000").exists()


def test_trials_are_stopped_early_and_a_killed_study_keeps_its_rungs(tmp_path):
    # A trial that costs more adds less to the hypervolume, and of two at a time none of the last four
    # can be the first at a rung: some are stopped, in whatever order trials reach it.
    shares = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
    sweep = {
        "n_trials": len(shares),
        "start": [{"search.budget.gmacs_share": share} for share in shares],
        "early_stopping": {"method": "front", "eta": 4, "first_rung": 1},
    }
    file = write(
        tmp_path,
        search=STUDY["search"] | {"epochs": 20},
        sweep=STUDY["sweep"] | sweep,
        resources={"max_concurrent": 2},
    )
    out = tmp_path / "out"
    study = start(file, out)
    wait(lambda: any("4" in t.user_attrs.get("rungs", {}) for t in trials(out)))
    kill_everything(study)
    left = {t.number: t.user_attrs["rungs"] for t in trials(out) if "rungs" in t.user_attrs}

    assert "were stopped early" in finish(file, out)
    after, table = trials(out), read_table(out)
    assert [t.state.name.lower() for t in after] == table["status"].tolist() and len(after) == 6
    for number, rungs in left.items():
        assert rungs.items() <= after[number].user_attrs["rungs"].items(), (
            "on a CPU a rung reached again is the same"
        )
    pruned = table["status"] == "pruned"
    assert 0 < pruned.sum() < 6
    history = read_history(out).query("kind == 'epoch' and phase == 'search'")
    epochs = history.groupby("trial")["epoch"].apply(list)
    assert epochs.tolist() == [list(range(1, last + 1)) for last in table["search_epochs"]], (
        "a trial that was stopped has its epochs up to there, and none has one twice"
    )
    assert table["search_epochs"].tolist() == [
        20 if t.state.name == "COMPLETE" else max(map(int, t.user_attrs["rungs"])) for t in after
    ]
    assert (
        table["weights"].isna().tolist() == pruned.tolist() and not (out / "checkpoints").exists()
    )
    assert not set(front(table)["trial"]) & set(table["trial"][pruned])
    assert json.loads(ofbnas("study", "list", out, "--json").stdout)[0]["pruned"] == pruned.sum()

"""Whole studies, with real processes: failing trials, extending, stopping early."""

from __future__ import annotations

import json

import pytest
import yaml
from commands import ofbnas, process, wait
from running import STUDY, finish, kill_everything, start, trials, write, written

from ofbnas import front, read_history, read_table
from ofbnas.config.study_file import load_study

pytestmark = pytest.mark.slow


def test_a_study_of_failures_exits_with_1_and_is_extended_by_trials_more_epochs_and_objectives(
    tmp_path,
):
    """Failing trials are rows with a reason, and the others continue."""
    params = STUDY["sweep"]["params"] | {"search.lr": {"choices": [2e-3, 1e30]}}
    bad, good = ({"search.lr": lr} for lr in (1e30, 2e-3))  # the sampler draws their shares
    others = [one | {"search.budget.gmacs_share": 0.6} for one in (bad, good)]
    sweep = STUDY["sweep"] | {"n_trials": 1, "params": params, "start": [bad]}
    file, out = write(tmp_path, sweep=sweep), tmp_path / "out"
    assert "every trial failed" in finish(file, out, code=1)
    assert json.loads(ofbnas("front", "show", out, "--json").stdout)["front"] == []
    assert "no row of" in ofbnas("front", "show", out).stdout

    objectives = "[{metric: top1, direction: maximize}, {metric: params, direction: minimize}]"
    settings = ["sweep.n_trials=4", "search.epochs=6", f"objectives={objectives}"]
    settings.append(f"sweep.start={yaml.safe_dump([bad, good, *others], default_flow_style=True)}")
    settings.append("sweep.trackers=[tensorboard]")
    asked = [part for setting in settings for part in ("--set", setting)]
    done = process("study", "run", file, "--output", out, *asked)
    assert done.returncode == 0, done.stderr
    table = read_table(out)
    failed = table["hp.search.lr"] == 1e30
    assert failed.tolist() == [True, False, True, False]
    assert (table["status"] == failed.map({True: "failed", False: "complete"})).all()
    assert table["reason"][failed].str.contains("NotFiniteError: .* is (?:nan|inf)").all()
    assert table["search_epochs"][~failed].tolist() == [6, 6]
    first, second, *_ = table["hp.search.budget.gmacs_share"]
    assert first != second, "a sampler started again does not repeat itself"
    told = trials(out)
    states = failed.map({True: "FAIL", False: "COMPLETE"})
    assert [t.state.name for t in told] == states.tolist()
    assert [t.values for t in told if t.values] == [
        list(v) for v in table[["top1", "params"]][~failed].to_numpy()
    ]
    assert "trial" in (out / "study.log").read_text()
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
        search=STUDY["search"] | {"epochs": 6},
        sweep=STUDY["sweep"] | sweep,
        resources={"max_concurrent": 2},
    )
    out = tmp_path / "out"
    study = start(file, out)
    wait(lambda: any("4" in t.user_attrs.get("rungs", {}) for t in trials(out)))
    kill_everything(study)
    done, before = written(out), trials(out)
    assert any(t.state.name == "RUNNING" for t in before)
    left = {t.number: t.user_attrs["rungs"] for t in before if "rungs" in t.user_attrs}

    assert "trials stopped early" in finish(file, out)
    assert written(out).items() >= done.items(), "finished trials were not run again"
    after, table = trials(out), read_table(out)
    assert all(
        old.params.items() <= new.params.items() for old, new in zip(before, after, strict=False)
    )
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
        6 if t.state.name == "COMPLETE" else max(map(int, t.user_attrs["rungs"])) for t in after
    ]
    assert (
        table["weights"].isna().tolist() == pruned.tolist() and not (out / "checkpoints").exists()
    )
    assert not set(front(table)["trial"]) & set(table["trial"][pruned])
    assert json.loads(ofbnas("study", "list", out, "--json").stdout)[0]["pruned"] == pruned.sum()

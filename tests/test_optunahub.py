"""The package for OptunaHub loads alone, and decides as our own rule does."""

from __future__ import annotations

import runpy
from unittest.mock import patch

import optuna
import optunahub
import pytest
import yaml
from conftest import ROOT
from early_stopping import recordings
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ofbnas.study.tuning.rungs import is_promoted

REGISTRY = ROOT / "optunahub" / "package"
NAME = "pruners/pareto_front_pruner"
FOLDER = REGISTRY / NAME
MODULE = optunahub.load_local_module(NAME, registry_root=str(REGISTRY))
optuna.logging.set_verbosity(optuna.logging.WARNING)


def decision(points, eta, worst) -> bool:
    """Whether the package promotes the last of some trials that report at its first rung."""
    pruner = MODULE.ParetoFrontPruner(1, eta, worst)
    study = optuna.create_study(directions=["minimize"] * len(points[0]), pruner=pruner)
    for values in points:
        trial = study.ask()
        pruner.report(trial, values, 1)
    return not pruner.should_prune(trial)


@given(
    arrays(float, st.tuples(st.integers(1, 9), st.integers(2, 4)), elements=st.integers(0, 6)),
    st.integers(2, 4),
    st.sampled_from(["hypervolume", "epsilon_net"]),
    st.sampled_from([7.0, 4.0]),  # some points lie beyond it
)
def test_it_decides_as_our_rule_does(points, eta, ties, corner):
    num_objectives = points.shape[1]
    worst = [corner] * num_objectives
    judged = {"maximise": [False] * num_objectives, "ref": worst, "eta": eta, "ties": ties}
    expected = is_promoted(points, len(points) - 1, **judged)
    assert decision(points.tolist(), eta, worst if ties == "hypervolume" else None) == expected


@pytest.mark.parametrize("ties", ["", ", epsilon-net"])
def test_recorded_studies_go_the_same_way(ties):
    """Accuracy is maximized here, and rungs are those of the study."""
    for recording in recordings():
        assert recording.replayed(f"front{ties}") == recording.replayed(
            f"pareto_front_pruner{ties}"
        )


def test_trials_are_pruned_at_rungs_and_only_there():
    pruner = MODULE.ParetoFrontPruner(min_resource=2, reduction_factor=3)
    assert [step for step in range(1, 60) if pruner.is_rung(step)] == [2, 6, 18, 54]
    study = optuna.create_study(directions=["minimize", "maximize"], pruner=pruner)
    first, second = study.ask(), study.ask()
    pruner.report(first, (1, 9), 2)
    pruner.report(second, (2, 8), 1)
    assert not pruner.should_prune(second)
    pruner.report(second, (2, 8), 2)
    assert pruner.should_prune(second) and not pruner.should_prune(first)


def test_what_cannot_be_compared_is_refused():
    for wrong in ({"min_resource": 0}, {"reduction_factor": 1}):
        with pytest.raises(ValueError, match="must be at least"):
            MODULE.ParetoFrontPruner(**wrong)
    pruner = MODULE.ParetoFrontPruner()
    trial = optuna.create_study(directions=["minimize"] * 2).ask()
    for values, message in (((1.0,), "has 2 objectives"), ((1.0, float("nan")), "must be finite")):
        with pytest.raises(ValueError, match=message):
            pruner.report(trial, values, 1)


def test_the_example_prunes_trials_and_finds_the_front(capsys):
    with patch.object(optunahub, "load_module", lambda package: MODULE):
        example = runpy.run_path(str(FOLDER / "example.py"))
    states = [trial.state.name for trial in example["study"].trials]
    assert 20 < states.count("PRUNED") < len(states) == 60
    assert "trials were pruned" in capsys.readouterr().out


def test_the_folder_is_as_the_registry_wants_it():
    """https://github.com/optuna/optunahub-registry: front matter, licence, no binaries."""
    assert {file.suffix or file.name for file in FOLDER.glob("*.*")} <= {".py", ".md"}
    assert (FOLDER / "LICENSE").read_text().startswith("MIT License")
    _, front, text = (FOLDER / "README.md").read_text().split("---\n", 2)
    matter = yaml.safe_load(front)
    assert list(matter) == ["author", "title", "description", "tags", "optuna_versions", "license"]
    assert "pruner" in matter["tags"] and matter["license"] == "MIT License"
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["## Abstract", "## APIs", "## Example", "## Others"]
    code = text.split("```python")[1].split("```")[0]
    assert 'optunahub.load_module("pruners/pareto_front_pruner")' in code
    with patch.object(optunahub, "load_module", lambda package: MODULE):
        exec(code, {})

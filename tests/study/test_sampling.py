"""Optuna's side of a study: samplers, conditions, starting points, constraints, invalid combinations."""

from __future__ import annotations

import math

import optuna
import pytest
from conftest import DIGITS
from rows import write_row
from test_table import row

from ofbnas.config.study_file import load_study
from ofbnas.errors import InputError
from ofbnas.study.cluster.sampling import StudySearch
from ofbnas.study.tuning.storage import storage_of

PARAMS = {
    "search.budget.gmacs_share": {"low": 0.2, "high": 0.6, "step": 0.1},
    "search.pmim.weight": {"choices": [0.0, 1.0]},
    "search.pmim.mask_ratio": {
        "low": 0.1,
        "high": 0.5,
        "step": 0.2,
        "when": {"search.pmim.weight": 1.0},
    },
}


def config(**sweep):
    study = load_study(DIGITS)
    tree = study.model_dump(mode="json")
    tree["sweep"] = {"n_trials": 12, "params": PARAMS, **sweep}
    return type(study).model_validate(tree)


def run(study, folder, trials, accuracy=lambda share: 90 - (share - 0.4) ** 2):
    """Run trials as Ray would ask for them, with made-up results."""
    search, found = StudySearch(study, folder), []
    for number in range(trials):
        suggested = search.suggest(f"t{number}")
        found.append(suggested["params"])
        share = suggested["params"].get("search.budget.gmacs_share", 0.3)
        values = {"gmacs": share, "val_top1": accuracy(share), "top1": accuracy(share)}
        write_row(folder, row(suggested["trial"], **values))
        search.on_trial_complete(f"t{number}")
    return found, optuna.load_study(study_name=study.name, storage=storage_of(study, folder))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "nsga3", "gp", "qmc", "random"])
def test_each_sampler_draws_within_the_ranges_and_its_conditions(sampler, tmp_path):
    drawn, study = run(config(sampler=sampler), tmp_path, 12)
    assert all(trial.state == optuna.trial.TrialState.COMPLETE for trial in study.trials)
    for values in drawn:
        assert 0.2 <= values["search.budget.gmacs_share"] <= 0.6
        assert ("search.pmim.mask_ratio" in values) == (values["search.pmim.weight"] == 1.0)
    assert len({values["search.pmim.weight"] for values in drawn}) == 2


def test_a_grid_goes_through_all_its_points(tmp_path):
    params = {
        name: {k: v for k, v in param.items() if k != "when"} for name, param in PARAMS.items()
    }
    drawn, _ = run(config(sampler="grid", params=params, n_trials=30), tmp_path, 30)
    assert len({tuple(values.values()) for values in drawn}) == 30 == 5 * 2 * 3


def test_a_study_begins_with_its_starting_points_once(tmp_path):
    start = [
        {"search.budget.gmacs_share": 0.6, "search.pmim.weight": 0.0},
        {"search.budget.gmacs_share": 0.2},
    ]
    study = config(sampler="random", start=start)
    first, _ = run(study, tmp_path, 1)
    again, _ = run(study, tmp_path, 2)
    assert first[0] == start[0]
    assert math.isclose(again[0]["search.budget.gmacs_share"], 0.2)
    assert len(StudySearch(study, tmp_path).study.trials) == 3, (
        "what waits is not added again on each start"
    )


def test_constraints_are_passed_to_the_sampler(tmp_path):
    study = config(constraints={"gmacs": {"max": 0.35}}, sampler_options={"n_startup_trials": 4})
    _, found = run(study, tmp_path, 10)
    for trial in found.trials:
        assert trial.constraints == {"gmacs": pytest.approx(trial.values[1] - 0.35)}
    feasible = {trial.number for trial in found.trials if trial.values[1] <= 0.35}
    best = {trial.number for trial in found.best_trials}
    assert best and best <= feasible


def test_a_trial_without_a_constrained_column_failed(tmp_path):
    study = config(constraints={"top5": {"min": 50}})
    search = StudySearch(study, tmp_path)
    write_row(tmp_path, row(search.suggest("t")["trial"], top5=None))
    search.on_trial_complete("t")
    assert search.study.trials[0].state == optuna.trial.TrialState.FAIL


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({"sampler": "grid"}, "a grid has no conditions"),
        (
            {"sampler": "grid", "params": {"search.lr": {"low": 0.1, "high": 0.2}}},
            "needs choices or a step for search.lr",
        ),
        (
            {"sampler": "grid", "params": {"search.lr": {"choices": [0.1]}}},
            "n_trials is 12, but the grid has 1 points",
        ),
        ({"sampler": "qmc", "constraints": {"gmacs": {"max": 1}}}, "qmc knows no constraints"),
        (
            {"start": [{"search.lr": 0.1}]},
            "start has search.lr at 0.1, which is not among what is swept",
        ),
        ({"start": [{"search.pmim.weight": 0.5}]}, "start has search.pmim.weight at 0.5"),
        (
            {"params": {"search.lr": {"choices": [0.1], "when": {"search.epochs": 3}}}},
            "has to be swept too",
        ),
        (
            {
                "params": PARAMS
                | {"search.lr": {"choices": [0.1], "when": {"search.pmim.weight": 3.0}}}
            },
            "being 3.0, which it never is",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(sweep, message):
    with pytest.raises(ValueError, match=message):
        config(**sweep)


def test_options_that_a_sampler_does_not_take_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"sweep.sampler_options of random: .*population_size"):
        StudySearch(config(sampler="random", sampler_options={"population_size": 3}), tmp_path)


def test_checkpoints_of_a_trial_that_has_a_row_are_removed_on_a_start(tmp_path):
    """As if everything was killed after the row was written and before they were removed."""
    study = config()
    run(study, tmp_path, 1)
    left = tmp_path / "checkpoints" / "trial-00000"
    left.mkdir(parents=True)
    (left / "search.pt").write_bytes(b"x")
    StudySearch(study, tmp_path)
    assert not (tmp_path / "checkpoints").exists()

"""Trials in one's own Optuna study give the rows that `ofbnas study run` gives, and resume."""

from __future__ import annotations

import errno
import threading
import warnings

import optuna
import pytest
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FixedTrial, TrialState
from own_study import OF_THE_RUN, SHARE, SINGLE, tiny

import ofbnas.optuna
from ofbnas.errors import InputError
from ofbnas.study.own_optuna import Objective
from ofbnas.study.trial import checkpoint_folder, run_trial
from ofbnas.study.tuning.points import draw
from ofbnas.table import store
from ofbnas.training.events import Callback

PARAMS = {
    SHARE: {"low": 0.3, "high": 0.8, "step": 0.1},
    "search.pmim.weight": {"choices": [0.0, 1.0]},
    "search.pmim.mask_ratio": {"low": 0.1, "high": 0.5, "when": {"search.pmim.weight": 1.0}},
    "search.lr": {"low": 1e-4, "high": 1e-2, "log": True},
    "search.pmim.start_ratio": {"low": 0.0, "high": 0.05},
}
optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OFBNAS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


class Interrupt(Callback):
    """Raises an error after an epoch of the first trial's search, and counts epochs."""

    def __init__(self, error: BaseException | None, epoch: int = 2) -> None:
        self.error = error
        self.epoch = epoch
        self.begun: list[tuple[str, int]] = []

    def on_fit_begin(self, phase, epoch, epochs):
        self.begun.append((phase, epoch))

    def on_epoch(self, phase, epoch, epochs, losses):
        if phase == "search" and epoch == self.epoch and self.error is not None:
            error, self.error = self.error, None
            raise error


def without_time(row: store.Row) -> dict:
    return {name: value for name, value in row.values().items() if name not in OF_THE_RUN}


def study_for(objective: Objective, **more) -> optuna.Study:
    sampler = optuna.samplers.RandomSampler(seed=0)
    return optuna.create_study(directions=objective.directions, sampler=sampler, **more)


def test_values_are_suggested_as_a_study_of_ours_draws_them():
    ours = tiny(sweep={"params": PARAMS}).sweep
    sampler = optuna.samplers.RandomSampler
    one, other = (optuna.create_study(sampler=sampler(seed=3)) for _ in range(2))
    seen = set()
    for _ in range(8):
        trial, expected = one.ask(), other.ask()
        assert ofbnas.optuna.suggest(trial, PARAMS) == draw(expected, ours)
        assert trial.distributions == expected.distributions
        seen.add("search.pmim.mask_ratio" in trial.params)
    assert seen == {True, False}


def test_values_of_a_study_by_name_fit_its_fields():
    trial = optuna.create_study().ask()
    values = ofbnas.optuna.suggest(trial, "digits")
    assert values == trial.params
    study = ofbnas.load_study("digits").with_values(values)
    assert study.search.budget.gmacs_share == values[SHARE]


def test_a_mistake_in_what_is_swept_names_the_field():
    with pytest.raises(InputError, match=r"search.lr.*low 2.*above high 1"):
        ofbnas.optuna.suggest(FixedTrial({}), {"search.lr": {"low": 2.0, "high": 1.0}})


def test_rows_are_those_of_a_study_of_ours_and_optuna_gets_their_values(tmp_path):
    study = tiny(sweep={"sampler": "tpe", "constraints": {"params": {"max": 20_000}}})
    events = Interrupt(None)
    objective = ofbnas.optuna.objective(study, tmp_path / "own", callbacks=[events])
    own = study_for(objective)
    own.optimize(objective, n_trials=2)
    assert [phase for phase, _ in events.begun].count("parent") == 1

    for trial in own.trials:
        made = objective._prepared
        run_trial(study, trial.params, trial.number, tmp_path / "ours", made.data, made.parent)
        row, expected = (store.read_row(tmp_path / name, trial.number) for name in ("own", "ours"))
        assert without_time(row) == without_time(expected)
        assert trial.values == [row.val_top1, row.gmacs]
        assert trial.constraints == {"params": row.params - 20_000}
    assert not (tmp_path / "own" / "checkpoints").exists()
    assert len(ofbnas.read_history(tmp_path / "own")["trial"].unique()) == 2
    assert ofbnas.load_subnet(tmp_path / "own", row.arch_id)
    assert ofbnas.load_study(tmp_path / "own" / "study.yaml") == study


class PruneFrom(optuna.pruners.BasePruner):
    """Prunes every trial but the first from an epoch on."""

    def prune(self, study, trial):
        return trial.number > 0 and trial.last_step >= 2


def test_one_objective_is_reported_at_rungs_and_pruned_by_the_users_pruner(tmp_path):
    objective = ofbnas.optuna.objective(tiny(objectives=SINGLE), tmp_path, rungs=[1, 2, 3])
    own = study_for(objective, pruner=PruneFrom())
    own.optimize(objective, n_trials=2)
    assert [trial.state for trial in own.trials] == [TrialState.COMPLETE, TrialState.PRUNED]
    assert [list(trial.intermediate_values) for trial in own.trials] == [[1, 2, 3], [1, 2]]

    row = store.read_row(tmp_path, 1)
    assert row.status == "pruned" and row.search_epochs == 2 and row.arch_id is None
    assert row.val_top1 == own.trials[1].intermediate_values[2]
    assert row.reason.startswith("stopped after epoch 2, with val_top1 ")
    assert own.trials[0].value == store.read_row(tmp_path, 0).val_top1


def test_several_objectives_are_pruned_by_fronts(tmp_path):
    """The second trial costs more than the first, so it adds less, and one of two is promoted."""
    front = {"method": "front", "eta": 4, "first_rung": 1}
    objective = ofbnas.optuna.objective(tiny(sweep={"early_stopping": front}), tmp_path)
    own = study_for(objective)
    for share in (0.3, 0.8):
        own.enqueue_trial({SHARE: share})
    own.optimize(objective, n_trials=2)
    statuses = [store.read_row(tmp_path, number).status for number in range(2)]
    states = [trial.state for trial in own.trials]
    assert statuses[0] == "complete" and states[0] == TrialState.COMPLETE
    assert statuses[1] == "pruned" and states[1] == TrialState.PRUNED
    reason = store.read_row(tmp_path, 1).reason
    assert reason.startswith("stopped after epoch 1, which 2 trials had reached, with val_top1 ")
    assert all(set(trial.user_attrs["rungs"]) == {"1"} for trial in own.trials)


def test_an_exception_is_the_reason_of_a_row_and_a_full_disk_is_not(tmp_path):
    events = Interrupt(RuntimeError("out of\nmemory"))
    objective = ofbnas.optuna.objective(tiny(), tmp_path, callbacks=[events])
    own = study_for(objective)
    own.optimize(objective, n_trials=1, catch=Exception)
    assert own.trials[0].state == TrialState.FAIL
    row = store.read_row(tmp_path, 0)
    assert row.status == "failed" and row.reason == "RuntimeError: out of memory"

    events.error = OSError(errno.ENOSPC, "no room")
    with pytest.raises(OSError, match="no room"):
        own.optimize(objective, n_trials=1)
    assert not store.has_row(tmp_path, 1)


@pytest.mark.parametrize("way", ["resume", "heartbeat"])
def test_an_interrupted_trial_goes_on_from_its_checkpoint(way, tmp_path):
    events = Interrupt(KeyboardInterrupt())
    objective = ofbnas.optuna.objective(tiny(), tmp_path, callbacks=[events])
    own = study_for(objective)
    with pytest.raises(KeyboardInterrupt):
        own.optimize(objective, n_trials=1)
    own.optimize(objective, n_trials=1)  # its checkpoints do not meet those of trial 0
    assert checkpoint_folder(tmp_path, 0).is_dir() and not store.has_row(tmp_path, 0)

    if way == "resume":
        assert objective.resume(own) == [0]
    else:
        with warnings.catch_warnings(action="ignore"):
            RetryHeartbeatStaleTrialCallback()(own, own.trials[0])
    assert objective.resume(own) == [], "it waits already"
    events.begun.clear()
    own.optimize(objective, n_trials=1)
    assert events.begun[0] == ("search", 2)
    assert objective.resume(own) == [], "it has its row"
    assert not (tmp_path / "checkpoints").exists()

    made = objective._prepared
    values = own.trials[0].params
    expected = run_trial(made.config, values, 0, tmp_path / "whole", made.data, made.parent)
    row = store.read_row(tmp_path, 2)
    differ = {"trial"}
    assert {
        name for name, value in without_time(row).items() if value != without_time(expected)[name]
    } == differ


def test_a_folder_belongs_to_one_optuna_study(tmp_path):
    objective = ofbnas.optuna.objective(tiny(), tmp_path)
    study_for(objective).optimize(objective, n_trials=1)
    with pytest.raises(InputError, match="has a row of a trial 0 already"):
        study_for(objective).optimize(objective, n_trials=1)


def test_what_does_not_fit_is_refused_before_anything_is_spent(tmp_path):
    objective = ofbnas.optuna.objective(tiny(), tmp_path)
    with pytest.raises(InputError, match=r"directions minimize, but .* val_top1 \(maximize\)"):
        optuna.create_study().optimize(objective, n_trials=1)
    assert not store.num_rows(tmp_path)

    asha = {"early_stopping": {"method": "asha", "metric": "val_top1"}}
    refused = [
        (tiny(sweep=asha), (), "is a rule of Ray's"),
        (tiny(), (1,), "no reports of 2 objectives"),
        (tiny(objectives=[{"metric": "top1", "direction": "maximize"}]), (1,), "top1 is not known"),
        (tiny(resources={"workers_per_trial": 2}), (), "workers_per_trial is 2"),
        (tiny(search={"budget": {"gmacs_share": 0.001}}, sweep={"params": {}}), (), "budget"),
        (tiny(search={"lr": 1e-3}), (), "holds a study with search.lr"),
    ]
    for study, rungs, message in refused:
        with pytest.raises(InputError, match=message):
            ofbnas.optuna.objective(study, tmp_path, rungs=rungs)


def test_a_process_runs_one_trial_at_a_time(tmp_path):
    objective = ofbnas.optuna.objective(tiny(), tmp_path)
    own = study_for(objective)
    together = threading.Barrier(2)

    def run(trial: optuna.Trial):
        together.wait()
        return objective(trial)

    own.optimize(run, n_trials=2, n_jobs=2)
    states = sorted(trial.state.name for trial in own.trials)
    assert states == ["COMPLETE", "FAIL"]
    assert store.num_rows(tmp_path) == 1

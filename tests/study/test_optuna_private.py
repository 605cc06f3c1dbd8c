"""What ofbnas uses of Optuna's private interface; these tests fail when Optuna changes it."""

from __future__ import annotations

import inspect
import json

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from ofbnas.study.tuning import optuna_private

CHANGED = f"Optuna {optuna.__version__} changed {{}}: adapt ofbnas/study/tuning/optuna_private.py"


@pytest.fixture
def study() -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))


def test_trials_and_studies_have_the_private_attributes(study):
    study.ask()
    assert hasattr(study, "_storage"), CHANGED.format("Study._storage")
    assert hasattr(study.trials[0], "_trial_id"), CHANGED.format("FrozenTrial._trial_id")
    parameters = list(inspect.signature(optuna.Trial).parameters)
    assert parameters == ["study", "trial_id"], CHANGED.format("the arguments of Trial")


def test_a_resumed_trial_keeps_its_number_and_values(study):
    value = study.ask().suggest_float("x", 0, 1)
    study.ask()
    resumed = optuna_private.resumed_trial(study, study.trials[0])
    assert resumed.number == 0, CHANGED.format("what a trial's id is")
    assert resumed.suggest_float("x", 0, 1) == value, CHANGED.format("suggesting a value again")
    study.tell(resumed, 1.0)
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.COMPLETE, TrialState.RUNNING]


def test_a_user_attribute_is_set_on_the_trial_alone(study):
    for _ in range(2):
        study.ask()
    optuna_private.set_user_attribute(study, study.trials[1], "rungs", {"3": {"val_top1": 90.0}})
    attributes = [trial.user_attrs for trial in study.trials]
    expected = [{}, {"rungs": {"3": {"val_top1": 90.0}}}]
    assert attributes == expected, CHANGED.format("set_trial_user_attr of its storages")


def test_constraints_are_system_attributes_and_nothing_else_is(study):
    study.enqueue_trial({"x": 0.5})
    trial = study.ask()
    before = study.trials[0].system_attrs
    assert before, CHANGED.format("where the values of an enqueued trial are kept")
    trial.set_constraint("params", -1.0)
    after = study.trials[0].system_attrs
    assert after.keys() > before.keys(), CHANGED.format("where constraints are kept")
    kept = optuna_private.without_constraints(after)
    assert kept == before, CHANGED.format("the prefix of constraints")


def test_a_journal_has_a_record_for_each_study_and_trial(tmp_path):
    file = tmp_path / "journal.log"
    storage = JournalStorage(JournalFileBackend(str(file)))
    study = optuna.create_study(storage=storage)
    study.ask().suggest_float("x", 0, 1)
    study.ask()
    records = [json.loads(line) for line in file.read_text().splitlines()]
    operations = [record.get(optuna_private.OPERATION) for record in records]
    message = CHANGED.format("the records of its journal")
    assert operations.count(optuna_private.CREATE_STUDY) == 1, message
    assert operations.count(optuna_private.CREATE_TRIAL) == 2, message
    assert {record.get(optuna_private.TRIAL_ID) for record in records} >= {0}, message


def test_rays_search_keeps_its_study():
    search = pytest.importorskip("ray.tune.search.optuna").OptunaSearch
    made = search(space=lambda trial: None, metric="top1", mode="max")
    message = "Ray changed OptunaSearch._ot_study: adapt ofbnas/study/tuning/optuna_private.py"
    assert hasattr(made, "_ot_study"), message
    assert isinstance(optuna_private.study_of_search(made), optuna.Study), message

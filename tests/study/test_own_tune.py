"""Trials in one's own Ray Tune: real schedulers stop them, pause them, and mix their checkpoints."""

from __future__ import annotations

import json
import threading

import pytest
import ray
from own_study import SHARE, tiny
from ray import tune
from ray.tune.schedulers import ASHAScheduler, PopulationBasedTraining

import ofbnas.tune
from ofbnas.errors import InputError
from ofbnas.study.own_tune import number_of
from ofbnas.study.tuning.points import without_unmet
from ofbnas.table import store

PARAMS = {
    "search.optimizer": {"choices": ["adamw", "lamb"]},
    "search.pmim.weight": {"low": 0.0, "high": 1.0, "step": 0.25},
    "search.lr": {"low": 1e-4, "high": 1e-2, "log": True},
    "search.epochs": {"low": 2, "high": 5},
    "search.refine.images": {"low": 64, "high": 256, "log": True},
    "search.weight_decay": {"low": 0.0, "high": 0.1, "when": {"search.optimizer": "lamb"}},
}


def test_the_space_of_a_study_has_its_values_and_conditions():
    sweep = tiny(sweep={"params": PARAMS}).sweep
    domains = ofbnas.tune.space(tiny(sweep={"params": PARAMS}))
    seen: dict[str, set] = {name: set() for name in PARAMS}
    for _ in range(100):
        values = {name: domain.sample() for name, domain in domains.items()}
        assert all(sweep.params[name].holds(value) for name, value in values.items())
        for name, value in values.items():
            seen[name].add(value)
        left_out = values.keys() - without_unmet(values, sweep).keys()
        assert left_out == (
            set() if values["search.optimizer"] == "lamb" else {"search.weight_decay"}
        )
    assert seen["search.epochs"] == {2, 3, 4, 5}
    assert seen["search.pmim.weight"] == {0.0, 0.25, 0.5, 0.75, 1.0}


def test_trials_are_numbered_once_and_without_gaps(tmp_path):
    def number(name):
        numbers[name] = number_of(tmp_path, name)

    numbers: dict[str, int] = {}
    threads = [threading.Thread(target=number, args=[f"t{index}"]) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers.values()) == list(range(8))
    assert all(number_of(tmp_path, name) == given for name, given in numbers.items())


def test_what_the_tuner_decides_is_refused_in_the_study(tmp_path):
    asha = {"early_stopping": {"method": "asha", "metric": "val_top1"}}
    refused = [
        (tiny(sweep=asha), 1, "your Tuner's scheduler decides"),
        (tiny(), 0, "report_every is 0"),
        (tiny(resources={"workers_per_trial": 2}), 1, "workers_per_trial is 2"),
    ]
    for study, report_every, message in refused:
        with pytest.raises(InputError, match=message):
            ofbnas.tune.trainable(study, tmp_path, report_every=report_every)
    assert not any(tmp_path.iterdir())


@pytest.fixture(scope="module")
def one_cpu(tmp_path_factory):
    """Ray with one CPU, as a user's program starts it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OFBNAS_CACHE", str(tmp_path_factory.mktemp("cache")))
        ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


def tuned(study, folder, param_space, **config):
    """A user's Tuner, one trial after the other in one process; the trial with least parameters wins."""
    return tune.Tuner(
        ofbnas.tune.trainable(study, folder / "table"),
        param_space=param_space,
        tune_config=tune.TuneConfig(metric="params", mode="min", reuse_actors=True, **config),
        run_config=tune.RunConfig(
            name="mine",
            storage_path=str(folder / "tune"),
            verbose=0,
            callbacks=[ofbnas.tune.rows(study, folder / "table")],
        ),
    ).fit()


@pytest.mark.slow
def test_asha_stops_a_trial_and_a_mistake_fails_one(one_cpu, tmp_path):
    asha = ASHAScheduler(time_attr="epoch", max_t=99, grace_period=1, reduction_factor=2)
    shares = {SHARE: tune.grid_search([0.3, 0.8, 5.0])}
    results = tuned(tiny(), tmp_path, shares, scheduler=asha, max_concurrent_trials=1)
    complete, pruned, failed = (store.read_row(tmp_path / "table", number) for number in range(3))

    assert (complete.status, complete.swept) == ("complete", {SHARE: 0.3})
    assert complete.inherited is None and results[0].metrics["top1"] == complete.top1
    assert results[0].metrics["epoch"] == 4 and results[0].checkpoint is not None
    assert ofbnas.load_subnet(tmp_path / "table", complete.arch_id)
    assert (pruned.status, pruned.search_epochs, pruned.swept) == ("pruned", 1, {SHARE: 0.8})
    assert pruned.parent_params == complete.parent_params
    assert pruned.parent_gmacs == complete.parent_gmacs
    assert failed.status == "failed" and f"{SHARE} is 5" in failed.reason
    assert [result.error is None for result in results] == [True, True, False]
    assert not (tmp_path / "table" / "checkpoints").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("synch", "interval"), [(True, 2), (False, 1)], ids=["synchronous", "asynchronous"]
)
def test_population_based_training_goes_on_from_another_trials_checkpoint(
    one_cpu, tmp_path, synch, interval
):
    """The second trial costs more, so it takes the checkpoint of the first, with another rate.

    With one CPU, trials take turns at each interval. Where none waits for the others, Tune keeps the
    checkpoint of the better trial from the second interval on: at the first, it does not know yet
    that it is the better one.
    """
    population = PopulationBasedTraining(
        time_attr="epoch",
        perturbation_interval=interval,
        quantile_fraction=0.5,
        resample_probability=0.0,
        hyperparam_mutations={"search.lr": [1e-3, 2e-3, 4e-3]},
        synch=synch,
    )
    space = {"search.lr": 2e-3, SHARE: tune.grid_search([0.3, 0.8])}
    results = tuned(tiny(), tmp_path, space, scheduler=population)
    assert not results.errors
    first, second = (store.read_row(tmp_path / "table", number) for number in range(2))
    assert first.status == second.status == "complete"
    assert first.inherited is None and first.swept == {"search.lr": 2e-3, SHARE: 0.3}

    assert json.loads(second.inherited) == {"2": {"trial": 0, "values": first.swept}}
    assert second.swept[SHARE] == 0.3 and second.swept["search.lr"] in (1e-3, 4e-3)
    assert second.seed == 1 and second.search_epochs == 3
    assert second.gmacs <= 0.3 * second.parent_gmacs

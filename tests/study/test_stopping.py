"""Early stopping: who is promoted, what a search reports at a rung, and what is stored."""

from __future__ import annotations

import importlib.util
import itertools
from dataclasses import replace
from types import SimpleNamespace

import moocore
import numpy as np
import pytest
import timm
import torch
from conftest import KWARGS, NAME, ROOT, SPACE
from events import Killed, Recorder
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState
from rows import write_row
from test_sampling import config as study_with
from test_search import config as search_config
from test_table import row

from ofbnas.models.axes import axes
from ofbnas.models.cost import cost_of, least_sizes, sizes_of
from ofbnas.nas.run import StageRun
from ofbnas.nas.search import search
from ofbnas.nas.stage import Stage
from ofbnas.study.cluster.sampling import StudySearch
from ofbnas.study.cluster.stopping import RungScheduler, rule_of
from ofbnas.study.tuning.reports import reached
from ofbnas.study.tuning.rungs import Reached, is_promoted
from ofbnas.study.validate import validate
from ofbnas.table.columns import KNOWN_AT_RUNGS
from ofbnas.table.compare import compare
from ofbnas.table.front import front
from ofbnas.table.store import read_row, read_table
from ofbnas.training.evaluation import evaluate

PARENT = {"gmacs": 1.0, "params": 1000}
TIES = st.sampled_from(["hypervolume", "epsilon_net"])


def rungs_of(low: int = 1, high: int = 24):
    """Points of (accuracy, cost), on a grid so coarse that many are equal."""
    return st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=low, max_size=high
    ).map(lambda points: np.array(points, dtype=np.float64))


def going(points, **settings):
    """Which of the trials at a rung are promoted."""
    asked = {"maximise": [True, False], "ref": [-1, 7], "eta": 3} | settings
    return [is_promoted(points, place, **asked) for place in range(len(points))]


def dominates(a, b) -> bool:
    return bool(a[0] >= b[0] and a[1] <= b[1] and (a != b).any())


@given(rungs_of(), st.integers(2, 5), TIES)
def test_one_in_eta_is_promoted_and_the_first_always(points, eta, ties):
    assert sum(going(points, eta=eta, ties=ties)) == -(-len(points) // eta)
    assert is_promoted(points[:1], 0, maximise=[True, False], ref=[-1, 7], eta=eta, ties=ties)


@given(rungs_of(), st.integers(2, 5), TIES)
def test_no_trial_is_promoted_before_one_that_dominates_it(points, eta, ties):
    on = going(points, eta=eta, ties=ties)
    for a, b in itertools.permutations(range(len(points)), 2):
        assert on[a] or not (on[b] and dominates(points[a], points[b]))


@given(rungs_of(), st.integers(2, 5), TIES)
def test_the_whole_front_is_promoted_if_it_fits(points, eta, ties):
    best = [not any(dominates(other, point) for other in points) for point in points]
    on = going(points, eta=eta, ties=ties)
    if sum(best) <= -(-len(points) // eta):
        assert all(goes for goes, is_best in zip(on, best, strict=True) if is_best)
    else:
        assert not any(goes for goes, is_best in zip(on, best, strict=True) if not is_best)


@given(rungs_of(2), st.integers(2, 5))
def test_of_equals_the_first_is_preferred(points, eta):
    on = going(points, eta=eta)
    for a, b in itertools.combinations(range(len(points)), 2):
        assert on[a] or not on[b] or (points[a] != points[b]).any()


@given(st.integers(0, 10**6), st.integers(1, 24), st.integers(2, 4), TIES)
def test_neither_order_nor_units_matter(seed, trials, eta, ties):
    generator = np.random.default_rng(seed)  # so that no two points are equal
    points, order = generator.random((trials, 2)), generator.permutation(trials)
    on = np.array(going(points, eta=eta, ties=ties))
    assert going(points[order], eta=eta, ties=ties) == on[order].tolist()
    assert going(points * [1, 1024], ref=[-1, 7 * 1024], eta=eta, ties=ties) == on.tolist()


@given(st.integers(0, 10**6))
def test_a_front_is_divided_so_that_most_hypervolume_is_left(seed):
    """One of three trials on a front is dropped; the other two keep as much hypervolume as any two."""
    accuracy, cost = np.sort(np.random.default_rng(seed).random((2, 3)))
    points = np.stack([accuracy, cost], axis=1)

    def volume(chosen) -> float:
        return float(moocore.hypervolume(points[chosen], ref=[-1, 7], maximise=[True, False]))

    best = max(volume(list(pair)) for pair in itertools.combinations(range(3), 2))
    assert volume(np.flatnonzero(going(points, eta=2))) == pytest.approx(best)


def test_an_epsilon_net_takes_the_best_and_then_what_is_farthest():
    points = np.array([[3.0, 3.0], [2.9, 2.9], [1.0, 1.5], [0.0, 0.0]])
    assert going(points, eta=2, ties="epsilon_net") == [True, False, False, True]


FRONT = {"method": "front", "eta": 2, "first_rung": 4}
RULES = {
    "front": FRONT,
    "asha": {"method": "asha", "metric": "val_top1", "eta": 2, "first_rung": 4},
    "median": {"method": "median", "metric": "val_top1", "first_rung": 4},
}


def told(trial: int, accuracy: float, epoch: int = 4, gmacs: float = 0.5) -> Reached:
    return Reached(trial, epoch, {"val_top1": accuracy, "gmacs": gmacs, "params": 500})


@pytest.mark.parametrize("method", RULES)
def test_each_rule_compares_a_trial_with_those_of_its_rung(method):
    rule = rule_of(study_with(early_stopping=RULES[method]), PARENT)
    earlier = [told(trial, accuracy) for trial, accuracy in enumerate([90, 91, 92, 93])]
    assert rule([], told(9, 1.0)), "the first has nobody to be compared with"
    assert not rule(earlier, told(9, 89)) and rule(earlier, told(9, 94))
    later = [*earlier, told(2, 96, epoch=8), told(3, 97, epoch=8)]
    assert rule([*later, told(9, 94)], told(9, 98, epoch=8))
    if method != "median":  # the median rule compares the means of all rungs so far
        assert not rule([*later, told(9, 94)], told(9, 95, epoch=8))


def test_only_fronts_see_the_second_objective():
    earlier = [told(trial, accuracy) for trial, accuracy in enumerate([90, 91, 92, 93])]
    cheap = told(9, 89, gmacs=0.1)
    on = {
        name: rule_of(study_with(early_stopping=RULES[name]), PARENT)(earlier, cheap)
        for name in RULES
    }
    assert on == {"front": True, "asha": False, "median": False}


def scheduled(folder):
    """A study of three running trials, and its scheduler."""
    study = study_with(sampler="random", early_stopping=FRONT)
    journal = StudySearch(study, folder)
    return study, journal, RungScheduler(study, journal, PARENT)


def tell(scheduler, number: int, accuracy: float, epoch: int = 4) -> str:
    """Report for a trial at a rung, and return the decision."""
    params = scheduler.search.study.trials[number].params
    values = {"val_top1": accuracy, "gmacs": 0.5, "params": 500}
    result = {"trial": number, "phase": "rung", "epoch": epoch, "seconds": 3.0, **values}
    return scheduler.on_trial_result(
        None, SimpleNamespace(config={"trial": number, "params": params}), result
    )


def test_a_stopped_trial_is_pruned_in_journal_and_table(tmp_path):
    _, journal, scheduler = scheduled(tmp_path)
    for name in "abc":
        journal.suggest(name)
    kept = tmp_path / "checkpoints" / "trial-00001"
    kept.mkdir(parents=True)
    assert scheduler.on_trial_result(None, None, {"phase": "search", "epoch": 4}) == "CONTINUE"
    assert [tell(scheduler, number, accuracy) for number, accuracy in enumerate([95, 90])] == [
        "CONTINUE",
        "STOP",
    ]
    journal.on_trial_complete("b")
    kept_row = read_row(tmp_path, 1)
    assert [
        getattr(kept_row, name) for name in ("status", "search_epochs", "val_top1", "seconds")
    ] == [
        "pruned",
        4,
        90,
        3.0,
    ]
    assert (
        kept_row.gmacs is None
        and kept_row.weights is None
        and "stopped after epoch 4" in kept_row.reason
    )
    assert validate(tmp_path).problems == []
    assert not kept.exists()
    trials = journal.study.trials
    assert [trial.state.name for trial in trials] == ["RUNNING", "PRUNED", "RUNNING"]
    assert trials[1].user_attrs["rungs"]["4"]["val_top1"] == 90


def test_a_trial_is_stopped_by_one_objective_where_another_is_known_at_its_end_only(tmp_path):
    study = study_with(sampler="random", early_stopping=RULES["asha"])
    late = [study.objectives[0], study.objectives[1].model_copy(update={"metric": "seconds"})]
    study = study.model_copy(update={"objectives": late})
    scheduler = RungScheduler(study, StudySearch(study, tmp_path), PARENT)
    for name in "ab":
        scheduler.search.suggest(name)
    assert [tell(scheduler, number, accuracy) for number, accuracy in enumerate([95, 90])] == [
        "CONTINUE",
        "STOP",
    ]
    assert read_row(tmp_path, 1).reason.endswith("with val_top1 90")


def test_rungs_outlive_the_driver_and_hold_each_trial_once(tmp_path):
    _, journal, scheduler = scheduled(tmp_path)
    for name in "abc":
        journal.suggest(name)
    assert tell(scheduler, 0, 95) == "CONTINUE"
    assert tell(scheduler, 0, 95) == "CONTINUE", (
        "its process was lost and started again; it does not beat itself"
    )
    assert tell(scheduler, 1, 90) == "STOP", (
        "then the driver is killed, before it has told the journal"
    )
    _, again, scheduler = scheduled(tmp_path)
    assert [trial.state for trial in again.study.trials][1] == TrialState.PRUNED
    assert [one.trial for one in reached(again.study)] == [0, 1]
    assert tell(scheduler, 0, 95) == "CONTINUE", (
        "it goes on from its checkpoint, and reaches the rung again"
    )
    assert [(one.trial, one.epoch) for one in reached(again.study)] == [(0, 4), (1, 4)]
    assert tell(scheduler, 2, 94) == "CONTINUE", (
        "the second of three; were trial 0 counted twice, the third of four"
    )


def test_a_pruned_row_is_on_no_front_whatever_it_says(tmp_path):
    for trial in (1, 2):
        write_row(tmp_path, row(trial))
    write_row(tmp_path, row(3, gmacs=0.1, top1=99.0, val_top1=99.0, status="pruned", seconds=1.0))
    table = read_table(tmp_path)
    assert front(table)["trial"].tolist() == [1]
    assert front(table, y="top1")["trial"].tolist() == [1, 2]
    groups, _ = compare(
        {"a": table, "b": table[table["trial"] != 3]}, x="gmacs", y="val_top1", ref=(9.0, 0.0)
    )
    assert groups[0].rows == groups[1].rows == 2 and groups[0].hypervolume == groups[1].hypervolume
    problems = [problem.what for problem in validate(tmp_path).problems if problem.trial == 3]
    assert {"was pruned, so it cannot have gmacs", "was pruned, so it cannot have arch_id"} <= set(
        problems
    )
    assert "was pruned, but search_epochs does not say when" in problems


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("constraints", [{}, {"gmacs": {"max": 0.45}}])
@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "gp"])
def test_samplers_take_pruned_trials(sampler, constraints, tmp_path):
    """Also if there are more of them than complete ones, at the beginning and later."""
    study = study_with(sampler=sampler, early_stopping=FRONT, constraints=constraints)
    journal = StudySearch(study, tmp_path)
    scheduler = RungScheduler(study, journal, PARENT)
    for number in range(14):
        journal.suggest(str(number))
        assert tell(scheduler, number, 90 + number if number % 5 == 4 else 90 - number) == (
            "CONTINUE" if number % 5 == 4 or number == 0 else "STOP"
        )
        if number % 5 == 4:
            write_row(tmp_path, row(number, gmacs=0.5 - number / 100))
        if number:
            journal.on_trial_complete(str(number))
    states = [trial.state.name for trial in journal.study.trials]
    assert states == [
        "RUNNING",
        *["COMPLETE" if number % 5 == 4 else "PRUNED" for number in range(1, 14)],
    ]


def test_a_search_reports_at_rungs_its_accuracy_and_its_projected_cost(model, data):
    """Until all axes are decided the cost is the middle of the budget's window, then the exact cost."""
    settings, told = search_config(epochs=6, decide_by=0.5), Recorder()
    given = {"name": NAME, "kwargs": KWARGS, "axes": axes(model, SPACE), "seed": 5}
    alone = search(model, data, settings, **given)
    found = search(model, data, settings, **given, rungs=[1, 3, 6, 9], callbacks=[told])
    said = dict(told.rungs)
    assert list(said) == [1, 3, 6] and all(
        tuple(values) == KNOWN_AT_RUNGS for values in said.values()
    )
    assert found.subnet.architecture == alone.subnet.architecture and found.history == alone.history
    window = StageRun(Stage(model, data, settings, given["axes"], 5)).constraint.window
    assert said[1]["gmacs"] * 1e9 == pytest.approx((window.floor + window.limit) / 2)
    params = cost_of(model, given["axes"], "params")
    assert (
        params.of(least_sizes(given["axes"]))
        < said[1]["params"]
        < params.of(sizes_of(given["axes"]))
    )
    for epoch in (3, 6):
        assert (said[epoch]["gmacs"] * 1e9, said[epoch]["params"]) == (
            pytest.approx(found.macs),
            found.params,
        )
    assert said[6]["val_top1"] == evaluate(found.subnet.model, data.val).top1


def test_a_supernet_is_measured_under_its_masks(data):
    """If the labels are the masked network's own predictions, it is always right and the parent is not."""
    torch.manual_seed(0)
    model = timm.create_model(NAME, **KWARGS).eval()
    with torch.no_grad():
        model.head.bias -= model(data.val.images).mean(
            0
        )  # otherwise it predicts the same class for all images
    run = StageRun(Stage(model, data, search_config(), axes(model, SPACE), 5))
    with torch.no_grad():
        says = run.supernet.eval()(data.val.images).argmax(1)
    run.data = replace(data, val=type(data.val)(data.val.images, says))
    assert run.projected_metrics()["val_top1"] == 100
    assert evaluate(model, run.data.val).top1 < 95


def test_a_rung_that_was_lost_in_an_interruption_is_reached_again(model, data, tmp_path):
    given = {
        "name": NAME,
        "kwargs": KWARGS,
        "axes": axes(model, SPACE),
        "checkpoint": tmp_path / "search.pt",
    }
    killed, resumed = Recorder(killed_at_rung=2), Recorder()
    with pytest.raises(Killed):
        search(model, data, search_config(epochs=3), **given, rungs=[1, 2], callbacks=[killed])
    search(model, data, search_config(epochs=3), **given, rungs=[1, 2], callbacks=[resumed])
    said = killed.rungs + resumed.rungs
    assert [epoch for epoch, _ in said] == [1, 2, 2]
    assert said[1] == said[2]


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location(
        "early_stopping", ROOT / "benchmarks" / "early_stopping.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_fronts_keep_the_hypervolume_of_recorded_studies_for_half_of_the_epochs(benchmark):
    for recording in benchmark.recordings():
        assert recording.replayed("none") == (list(range(recording.trials)), recording.epochs)
        stopped = recording.replayed("front")
        assert stopped.epochs <= recording.epochs / 2
        assert recording.share(stopped.ended) >= 0.99 * recording.share()

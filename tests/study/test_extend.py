"""Which settings may change once a study has begun; trials keep their numbers."""

from __future__ import annotations

import shutil

import optuna
import pytest
from optuna.trial import TrialState
from rows import write_row
from test_sampling import PARAMS, config, run
from test_table import row

from ofbnas.config import FinetuneConfig, StudyConfig, SweepConfig
from ofbnas.config.study_file import dump_study
from ofbnas.errors import InputError
from ofbnas.study.cluster.sampling import StudySearch
from ofbnas.study.tuning.extend import changes, rule_of
from ofbnas.study.tuning.storage import storage_of
from ofbnas.table.store import read_row

SHARE, WEIGHT = "search.budget.gmacs_share", "search.pmim.weight"
UNCONDITIONAL = {
    name: {key: value for key, value in p.items() if key != "when"} for name, p in PARAMS.items()
}


def changed(study, **values):
    """A study with other values for fields by dotted name, with two underscores for a dot."""
    tree = study.model_dump(mode="json")
    for name, value in values.items():
        *parents, leaf = name.split("__")
        place = tree
        for parent in parents:
            place = place[parent]
        place[leaf] = value
    return type(study).model_validate(tree)


def begun(folder, trials=4, interrupted=0, **sweep):
    """A study with rows of trials, and trials that were interrupted."""
    folder.mkdir(exist_ok=True)
    study = config(**{"sampler": "random"} | sweep)
    run(study, folder, trials)
    search = StudySearch(study, folder)
    for number in range(interrupted):
        search.suggest(f"left{number}")
    (folder / "study.yaml").write_text(dump_study(study))
    return study


def trials_of(study, folder):
    return optuna.load_study(study_name=study.name, storage=storage_of(study, folder)).trials


def test_every_field_of_a_study_has_a_rule():
    fields = [name for name in StudyConfig.model_fields if name != "sweep"]
    for name in [*fields, *(f"sweep.{name}" for name in SweepConfig.model_fields)]:
        assert name == rule_of(name).field, "a new field needs a decision"


def test_a_grid_resumes_where_it_ended(tmp_path):
    study = begun(tmp_path, 6, sampler="grid", params=UNCONDITIONAL, n_trials=6)
    run(changed(study, sweep__n_trials=30), tmp_path, 24)
    points = [tuple(trial.params.values()) for trial in trials_of(study, tmp_path)]
    assert len(points) == len(set(points)) == 30


def test_a_wider_grid_has_all_its_points_tried_once(tmp_path):
    study = begun(tmp_path, 6, sampler="grid", params=UNCONDITIONAL, n_trials=6)
    wider = UNCONDITIONAL | {WEIGHT: {"choices": [0.5, 0.0, 1.0]}}
    run(changed(study, sweep__params=wider, sweep__n_trials=45), tmp_path, 39)
    points = [tuple(trial.params.values()) for trial in trials_of(study, tmp_path)]
    assert len(points) == len(set(points)) == 45


def test_a_grid_that_is_left_has_no_points_waiting(tmp_path):
    study = begun(tmp_path, 6, sampler="grid", params=UNCONDITIONAL, n_trials=6)
    other = changed(study, sweep__sampler="tpe")
    assert len(StudySearch(other, tmp_path).study.trials) == 6
    (tmp_path / "study.yaml").write_text(dump_study(other))
    with pytest.raises(
        InputError, match=r"sweep.sampler tpe \(requested: grid\), but a grid's points are all"
    ):
        StudySearch(study, tmp_path)


def test_points_that_are_added_are_next(tmp_path):
    first, second = {SHARE: 0.6}, {SHARE: 0.2, WEIGHT: 0.0}
    study = begun(tmp_path, 3, start=[first])
    search = StudySearch(changed(study, sweep__start=[first, second]), tmp_path)
    assert search.suggest("a") == {"trial": 3, "params": second}
    assert search.suggest("b")["trial"] == 4
    assert [trial.state for trial in search.study.trials][3:] == [TrialState.RUNNING] * 2, (
        "none waits"
    )


@pytest.mark.parametrize(
    "objectives", [["top1", "params"], ["params"], ["gmacs", "top1", "seconds"]]
)
def test_other_objectives_are_reported_for_all_trials(objectives, tmp_path):
    study = begun(tmp_path, 5, interrupted=2)
    write_row(tmp_path, row(1, seconds=None, status="failed"))
    write_row(tmp_path, row(2, seconds=None, top1=97.0))
    for number in (0, 3, 4):
        write_row(tmp_path, row(number, seconds=3.0 - number, top1=90.0 + number))
    before = trials_of(study, tmp_path)
    asked = [
        {"metric": name, "direction": "maximize" if name == "top1" else "minimize"}
        for name in objectives
    ]
    search = StudySearch(changed(study, objectives=asked, sweep__n_trials=9), tmp_path)
    after = search.study.trials
    assert search.study.metric_names == objectives
    assert [direction.name.lower() for direction in search.study.directions] == [
        one["direction"] for one in asked
    ]
    for old, new in zip(before, after, strict=True):
        kept = ("number", "params", "distributions", "datetime_start", "datetime_complete")
        assert [getattr(old, name) for name in kept] == [getattr(new, name) for name in kept]
    for trial in after[:5]:
        found = read_row(tmp_path, trial.number)
        values = [getattr(found, name) for name in objectives]
        failed = found.status == "failed" or None in values
        assert (trial.state, trial.values) == (
            (TrialState.FAIL, None) if failed else (TrialState.COMPLETE, values)
        )
    assert [search.suggest(name)["trial"] for name in "abc"] == [5, 6, 7], (
        "interrupted trials are gone on with"
    )
    again = StudySearch(study, tmp_path).study.trials
    assert [t.state.name for t in again[:5]] == [
        "COMPLETE",
        "FAIL",
        "COMPLETE",
        "COMPLETE",
        "COMPLETE",
    ], "and back"


def test_other_constraints_judge_all_trials(tmp_path):
    study = begun(tmp_path, 5, sampler="tpe", constraints={"gmacs": {"max": 0.35}})
    asked = changed(study, sweep__constraints={"gmacs": {"max": 0.45}, "top1": {"min": 80}})
    for trial in StudySearch(asked, tmp_path).study.trials:
        assert trial.constraints == pytest.approx(
            {"gmacs": trial.values[1] - 0.45, "top1": 80 - trial.values[0]}
        )


@pytest.mark.parametrize(
    "params",
    [
        PARAMS | {SHARE: {"low": 0.1, "high": 0.9, "step": 0.1}},
        PARAMS | {SHARE: {"low": 0.05, "high": 1.0, "log": True}},
        PARAMS | {WEIGHT: {"choices": [2.0, 1.0, 0.0]}},
    ],
)
def test_ranges_that_hold_all_trials_are_those_of_all_trials(params, tmp_path):
    study = begun(tmp_path, 6)
    before = [trial.params for trial in trials_of(study, tmp_path)]
    search = StudySearch(changed(study, sweep__params=params), tmp_path)
    search.suggest("t")
    trials = search.study.trials
    assert [trial.params for trial in trials[:6]] == before
    assert all(len({str(t.distributions[name]) for t in trials}) == 1 for name in (SHARE, WEIGHT))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            PARAMS | {SHARE: {"low": 0.6, "high": 0.61}},
            r"trial \d lies outside .*isn't contained in",
        ),
        (PARAMS | {WEIGHT: {"choices": [0.5, 1.0]}}, r"trial \d lies outside .*0.0.* not in"),
        (
            PARAMS | {"search.lr": {"low": 0.1, "high": 0.2}},
            "trial 0 lies outside .*it has no value of search.lr",
        ),
        (
            {SHARE: PARAMS[SHARE]},
            "trial 0 lies outside .*it has a value of search.pmim.* not swept there",
        ),
    ],
)
def test_ranges_that_do_not_hold_all_trials_are_refused(params, message, tmp_path):
    study = begun(tmp_path, 6)
    before = (tmp_path / "journal.log").read_bytes()
    with pytest.raises(
        InputError, match=f"{message}.*: widen it, or give --output a new folder, where sweep.start"
    ):
        StudySearch(changed(study, sweep__params=params), tmp_path)
    assert (tmp_path / "journal.log").read_bytes() == before


def test_epochs_change_for_trials_to_come(tmp_path):
    study = begun(tmp_path, 3, n_trials=4)
    more = changed(study, search__epochs=60, finetune__epochs=9)
    assert StudySearch(more, tmp_path).suggest("t")["trial"] == 3
    write_row(tmp_path, row(3))
    (tmp_path / "study.yaml").write_text(dump_study(more))
    with pytest.raises(
        InputError,
        match=r"search.epochs 60 \(requested: 70\), which only new trials can follow, but all 4",
    ):
        StudySearch(changed(more, search__epochs=70), tmp_path)


@pytest.mark.parametrize(
    "asked",
    [{"search__epochs": 60}, {"sweep__params": PARAMS | {WEIGHT: {"choices": [0.0, 1.0, 2.0]}}}],
)
def test_interrupted_trials_are_finished_with_what_they_began_with(asked, tmp_path):
    study = begun(tmp_path, 3, interrupted=2)
    way = f"trials were interrupted .*3, 4.* ofbnas study run {tmp_path}/study.yaml .*--set sweep.n_trials=5"
    with pytest.raises(InputError, match=way):
        StudySearch(changed(study, **asked), tmp_path)
    for other in ({"sweep__n_trials": 6}, {"resources__max_failures": 1}):
        assert StudySearch(changed(study, **other), tmp_path).suggest("t")["trial"] == 3


def test_fewer_trials_than_have_begun_are_refused(tmp_path):
    study = begun(tmp_path, 3, interrupted=1)
    with pytest.raises(
        InputError, match="sweep.n_trials is 3, but 4 trials have begun; give 4 or more"
    ):
        StudySearch(changed(study, sweep__n_trials=3), tmp_path)
    assert StudySearch(changed(study, sweep__n_trials=4), tmp_path).suggest("t")["trial"] == 3


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"name": "other"},
            r"name digits \(requested: other\), but rows and Optuna's study are recorded under the name",
        ),
        ({"seed": 7}, r"seed 0 \(requested: 7\), but the parent and each trial's seed"),
        ({"model__kwargs": {"depth": 3}}, "one parent"),
        (
            {"data__val_share": 0.3},
            r"data.val_share 0.15 \(requested: 0.3\), but accuracies on other images",
        ),
        ({"pretrain": None, "model__pretrained": True}, "one parent"),
        ({"search_space": {"mlp": [8]}}, "but rows do not record the space"),
        (
            {"search__lr": 0.5},
            r"search.lr .*requested: 0.5\), but rows do not record this setting.*; sweep it instead",
        ),
        ({"finetune": None}, "finetune.*, but rows do not record this setting"),
        (
            {"finetune": FinetuneConfig(epochs=20, lr=0.3).model_dump()},
            "finetune.lr .*but rows do not record",
        ),
    ],
)
def test_what_never_changes_is_refused_with_reason_and_way_out(asked, message, tmp_path):
    study = begun(tmp_path, 1)
    with pytest.raises(
        InputError,
        match=f"{message}.*: give --output a new folder, where sweep.start can begin with",
    ):
        changes(changed(study, **asked), tmp_path)


def test_a_change_that_is_killed_anywhere_is_made_on_the_next_start(tmp_path):
    """The journal is cut after each of the records that the change wrote."""
    study = begun(tmp_path / "made", 3, interrupted=1, start=[{SHARE: 0.6}])
    asked = changed(
        study, objectives=[{"metric": "params", "direction": "minimize"}], sweep__n_trials=9
    )
    journal = tmp_path / "made" / "journal.log"
    before = journal.read_bytes().count(b"\n")
    wanted = [
        (t.number, t.state, t.values, t.params)
        for t in StudySearch(asked, journal.parent).study.trials
    ]
    assert [values for _, _, values, _ in wanted] == [[10**9], [10**9 + 1], [10**9 + 2], None]
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) - before > 15
    for end in range(before, len(lines) + 1):
        folder = shutil.copytree(journal.parent, tmp_path / f"killed-{end}")
        (folder / "journal.log").write_bytes(b"".join(lines[:end]))
        found = StudySearch(asked, folder)
        assert [(t.number, t.state, t.values, t.params) for t in found.study.trials] == wanted, (
            f"killed after {end}"
        )
        assert optuna.get_all_study_names(storage_of(asked, folder)) == [study.name]
        assert found.suggest("t")["trial"] == 3


def test_a_study_that_is_killed_while_it_is_made_has_all_its_points(tmp_path):
    study = config(sampler="grid", params=UNCONDITIONAL, n_trials=30)
    (tmp_path / "made").mkdir()
    StudySearch(study, tmp_path / "made")
    lines = (tmp_path / "made" / "journal.log").read_bytes().splitlines(keepends=True)
    for end in (1, 2, 3, 9, len(lines) - 1):
        folder = tmp_path / f"killed-{end}"
        folder.mkdir()
        (folder / "journal.log").write_bytes(b"".join(lines[:end]))
        assert len(StudySearch(study, folder).study.trials) == 30

"""Optuna's study of a folder, and how it is replaced when settings change.

A changed study is written beside the old one, under another name, before the old one is deleted. If
the process is killed in between, the next start completes the move. The study also keeps the
settings that it was written with, so that nothing depends on the order in which files are written.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from ofbnas.config import StudyConfig
from ofbnas.config.storage import JOURNAL, shown
from ofbnas.config.study_file import load_study
from ofbnas.errors import InputError
from ofbnas.study.tuning.extend import WAY_OUT, changes, check_changes
from ofbnas.study.tuning.optuna_private import without_constraints
from ofbnas.study.tuning.owner import check_owner, set_owner
from ofbnas.study.tuning.points import draw, grid_points
from ofbnas.table import store
from ofbnas.table.columns import Row

WRITTEN_BY = "ofbnas_settings"  # attribute of Optuna's study
# States that are reported to Optuna only after the trial's row is on disk.
WITH_ROW = (TrialState.COMPLETE, TrialState.PRUNED)


def find_study(config: StudyConfig, folder: Path, storage: BaseStorage) -> optuna.Study | None:
    """Optuna's study of a folder, None where it has none yet.

    Raises:
        InputError: The study of that name is another folder's.
    """
    if config.name not in optuna.get_all_study_names(storage):
        return None
    study = optuna.load_study(study_name=config.name, storage=storage)
    check_owner(config, folder, study)
    return study


def bring_in_line(config: StudyConfig, folder: Path, storage: BaseStorage) -> None:
    """Make Optuna's study of a folder, or bring it in line with settings that changed.

    Its trials keep their numbers.

    Raises:
        InputError: The study is another folder's, lacks trials of the table, or may not change in
            this way.
    """
    _end_move(config, folder, storage)
    study = find_study(config, folder, storage)
    begun = []
    if study is not None:
        trials = study.get_trials(deepcopy=False)
        begun = [trial for trial in trials if trial.state != TrialState.WAITING]
    _check_complete(config, folder, study, len(begun))

    to_resume = [trial.number for trial in begun if _is_interrupted(trial, folder)]
    changed = changes(config, folder)
    check_changes(config, folder, changed, len(begun), to_resume)
    if study is None:
        _write(config, folder, storage, config.name, [])
        return

    # A trial to resume that Optuna has as finished has lost its row to damage.
    interrupted = [trial for trial in begun if trial.number in to_resume]
    rows_lost = any(trial.state in WITH_ROW for trial in interrupted)
    written_by = _written_by(study, folder)
    if written_by == _settings(config) and not rows_lost:
        return
    rewritten = [_rewritten(trial, config, folder, written_by) for trial in begun]
    _write(config, folder, storage, _beside(config), rewritten)
    _end_move(config, folder, storage)


def _check_complete(
    config: StudyConfig,
    folder: Path,
    study: optuna.Study | None,
    begun: int,
) -> None:
    """Check that Optuna's study has all trials of the table.

    Raises:
        InputError: It lacks some, so it is not the study that the table was made with.
    """
    lost = study is None and (folder / "study.yaml").is_file()
    if lost or store.next_trial(folder) > begun:
        num_rows = store.num_rows(folder)
        storage = shown(config.sweep.storage or JOURNAL)
        raise InputError(
            f"{folder}: is a study whose table has {num_rows} trials, but "
            f"sweep.storage {storage} has {begun} of them; "
            f"give the storage that the study was run with, or {WAY_OUT}"
        )


def _is_interrupted(trial: FrozenTrial, folder: Path) -> bool:
    """Whether a trial that has begun is to be run again: it has no row, and did not fail."""
    if trial.state not in (TrialState.RUNNING, *WITH_ROW):
        return False
    return not store.has_row(folder, trial.number)


def values_of_row(row: Row | None, config: StudyConfig) -> dict[str, float] | None:
    """What is reported to Optuna of a trial: its objectives and constrained columns.

    Returns:
        Column to value; None where the trial failed, or lacks a finite value of one of them.
    """
    if row is None or row.status != "complete":
        return None
    metrics = [objective.metric for objective in config.objectives]
    metrics += config.sweep.constraints

    values = {}
    for metric in metrics:
        value = getattr(row, metric)
        if value is None or not math.isfinite(value):
            return None
        values[metric] = value
    return values


def set_constraints_(
    trial: optuna.Trial | FrozenTrial, config: StudyConfig, values: Mapping[str, float]
) -> None:
    """Tell Optuna how far a trial is from meeting the sweep's constraints; 0 or less meets one."""
    for metric, bound in config.sweep.constraints.items():
        trial.set_constraint(metric, bound.excess(values[metric]))


def _rewritten(
    trial: FrozenTrial,
    config: StudyConfig,
    folder: Path,
    written_by: Mapping[str, Any],
) -> FrozenTrial:
    """A trial that has begun, as it would be had the study had these settings from its start.

    Args:
        trial: The trial.
        config: The settings.
        folder: The study's folder, whose table has the trial's row.
        written_by: The settings that Optuna's study was written with.

    Raises:
        InputError: It lies outside of the ranges that are swept now.
    """
    values = values_of_row(store.read_row(folder, trial.number), config)
    state = _state_now(trial, folder, values)
    distributions = trial.distributions
    if written_by["params"] != _settings(config)["params"]:
        distributions = _distributions_now(trial, config, folder, written_by)
    # Intermediate values are of the old objectives, so they mean nothing to new ones.
    same_objectives = written_by["objectives"] == _settings(config)["objectives"]

    completed = values if state == TrialState.COMPLETE else None
    objectives = None
    if completed is not None:
        objectives = [completed[objective.metric] for objective in config.objectives]
    rewritten = create_trial(
        state=state,
        values=objectives,
        params=trial.params,
        distributions=distributions,
        user_attrs=trial.user_attrs,
        system_attrs=without_constraints(trial.system_attrs),
        intermediate_values=trial.intermediate_values if same_objectives else {},
    )
    rewritten.datetime_start = trial.datetime_start
    rewritten.datetime_complete = None
    if state.is_finished():
        rewritten.datetime_complete = trial.datetime_complete
    if completed is not None:
        set_constraints_(rewritten, config, completed)
    return rewritten


def _state_now(
    trial: FrozenTrial,
    folder: Path,
    values: Mapping[str, float] | None,
) -> TrialState:
    """A trial's state under settings with other objectives or constraints.

    Args:
        trial: The trial.
        folder: The study's folder.
        values: What is reported of it under these settings.
    """
    if trial.state in WITH_ROW and not store.has_row(folder, trial.number):
        return TrialState.RUNNING  # its row was damaged, so it runs again
    if trial.state in (TrialState.COMPLETE, TrialState.FAIL):
        return TrialState.FAIL if values is None else TrialState.COMPLETE
    return trial.state


def _distributions_now(
    trial: FrozenTrial,
    config: StudyConfig,
    folder: Path,
    written_by: Mapping[str, Any],
) -> dict[str, BaseDistribution]:
    """The distributions of a trial's values under other ranges of the swept fields.

    Raises:
        InputError: The values do not lie in these ranges.
    """
    sweep = config.sweep
    fixed = FixedTrial(trial.params)
    try:
        added = sweep.params.keys() - written_by["params"].keys()
        if added:
            raise ValueError(f"it has no value of {min(added)}")
        # FixedTrial only warns of a value outside of its range; create_trial refuses it.
        with warnings.catch_warnings(action="ignore"):
            drawn = draw(fixed, sweep)
            not_swept = trial.params.keys() - drawn.keys()
            if not_swept:
                raise ValueError(f"it has a value of {min(not_swept)}, which is not swept there")
            create_trial(
                state=TrialState.RUNNING,
                params=trial.params,
                distributions=fixed.distributions,
            )
    except ValueError as error:
        raise InputError(
            f"{folder}: trial {trial.number} lies outside the sweep.params asked for ({error}), "
            f"but Optuna needs one range for all trials: widen it, or {WAY_OUT}"
        ) from None
    return fixed.distributions


def _write(
    config: StudyConfig,
    folder: Path,
    storage: BaseStorage,
    name: str,
    trials: Sequence[FrozenTrial],
) -> optuna.Study:
    """Write a study with its trials, and enqueue the points that are to be tried.

    It is complete once it has the attribute `WRITTEN_BY`, which is written last.
    """
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        directions=[objective.direction for objective in config.objectives],
    )
    set_owner(config, folder, study)
    study.set_metric_names([objective.metric for objective in config.objectives])
    study.add_trials(trials)

    points = grid_points(config.sweep, config.seed)
    for values in [*config.sweep.start, *points]:
        study.enqueue_trial(values, skip_if_exists=True)
    study.set_user_attr(WRITTEN_BY, _settings(config))
    return study


def _end_move(config: StudyConfig, folder: Path, storage: BaseStorage) -> None:
    """Rename a study that was written beside the old one; an incomplete one is deleted."""
    names = optuna.get_all_study_names(storage)
    beside = _beside(config)
    if beside not in names:
        return
    study = optuna.load_study(study_name=beside, storage=storage)
    check_owner(config, folder, study)
    if WRITTEN_BY in study.user_attrs:
        if config.name in names:
            optuna.delete_study(study_name=config.name, storage=storage)
        optuna.copy_study(
            from_study_name=beside,
            from_storage=storage,
            to_storage=storage,
            to_study_name=config.name,
        )
    optuna.delete_study(study_name=beside, storage=storage)


def _beside(config: StudyConfig) -> str:
    """The name of a study that is being written; no finished one has such a name."""
    return f"{config.name} (being written)"


def _settings(config: StudyConfig) -> dict[str, Any]:
    """The settings that determine Optuna's study, apart from its trials."""
    tree = config.model_dump(mode="json")
    sweep = tree["sweep"]
    return {
        "objectives": tree["objectives"],
        "grid": sweep["sampler"] == "grid",
        "params": sweep["params"],
        "start": sweep["start"],
        "constraints": sweep["constraints"],
    }


def _written_by(study: optuna.Study, folder: Path) -> dict[str, Any]:
    """The settings that a study was written with; the folder's where the study has none."""
    settings: dict[str, Any] | None = study.user_attrs.get(WRITTEN_BY)
    if settings is not None:
        return settings
    file = folder / "study.yaml"
    if file.is_file():
        return _settings(load_study(file))
    return {"objectives": None, "params": None}

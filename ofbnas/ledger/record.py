"""Optuna's study of a folder: whose it is, and written anew when settings change what it says of its trials.

It is written beside the old one, under another name, before that is removed; a start after a kill in between ends the
move. What Optuna's study was written by is kept in it, so that nothing depends on the order of files.
"""

from __future__ import annotations

import math
import uuid
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from ofbnas import table
from ofbnas.config import StudyConfig
from ofbnas.config.storage import file_of, shown
from ofbnas.errors import InputError
from ofbnas.ledger.extend import WAY_OUT, changes, check_begun
from ofbnas.ledger.points import draw, grid_points
from ofbnas.study_file import load_study

OWNER, WRITTEN_BY = "ofbnas_folder", "ofbnas_settings"  # attributes of Optuna's study
ID_FILE = ".study-id"  # in folders whose study lies elsewhere


def find_study(config: StudyConfig, folder: Path, storage: BaseStorage) -> optuna.Study | None:
    """Optuna's study of a folder, None where it has none yet.

    Raises:
        InputError: The study of that name is another folder's.
    """
    if config.name not in optuna.get_all_study_names(storage):
        return None
    study = optuna.load_study(study_name=config.name, storage=storage)
    _check_owner(config, folder, study)
    return study


def bring_in_line(config: StudyConfig, folder: Path, storage: BaseStorage) -> None:
    """Make Optuna's study of a folder, or bring it in line with settings that changed; its trials keep their numbers.

    Raises:
        InputError: The study is another folder's, lacks trials of the table, or may not change so.
    """
    _end_move(config, folder, storage)
    study = find_study(config, folder, storage)
    trials = study.get_trials(deepcopy=False) if study is not None else []
    begun = [trial for trial in trials if trial.state != TrialState.WAITING]
    lost = study is None and (folder / "study.yaml").is_file()
    if lost or table.next_trial(folder) > len(begun):
        raise InputError(
            f"{folder}: is a study whose table has {table.num_rows(folder)} trials, but sweep.storage "
            f"{shown(config.sweep.storage or 'journal.log')} has {len(begun)} of them; give the storage that the "
            f"study was run with, or {WAY_OUT}"
        )
    interrupted = [
        trial.number for trial in begun if trial.state == TrialState.RUNNING and not table.has_row(folder, trial.number)
    ]
    check_begun(config, folder, changes(config, folder), len(begun), interrupted)
    if study is None:
        _write(config, folder, storage, config.name, [])
        return
    written_by = _written_by(study, folder)
    if written_by == _settings(config):
        return
    again = [_again(trial, config, folder, written_by) for trial in begun]
    _write(config, folder, storage, _beside(config), again)
    _end_move(config, folder, storage)


def told(row: Mapping[str, Any] | None, config: StudyConfig) -> dict[str, float] | None:
    """What Optuna is told of a trial: its objectives and constrained columns; None where it failed."""
    if row is None or row["status"] != "complete":
        return None
    asked: list[str] = [*(objective.metric for objective in config.objectives), *config.sweep.constraints]
    known = {metric: row[metric] for metric in asked}
    return known if all(value is not None and math.isfinite(value) for value in known.values()) else None


def _again(trial: FrozenTrial, config: StudyConfig, folder: Path, written_by: Mapping[str, Any]) -> FrozenTrial:
    """A trial that has begun, as it would be had the study had these settings from its start."""
    sweep, known = config.sweep, told(table.read_row(folder, trial.number), config)
    distributions, intermediate = trial.distributions, trial.intermediate_values
    if written_by["params"] != _settings(config)["params"]:
        fixed = FixedTrial(trial.params)
        try:
            if added := sweep.params.keys() - written_by["params"].keys():
                raise ValueError(f"it has no value of {min(added)}")
            with warnings.catch_warnings(action="ignore"):  # create_trial refuses what is warned of
                if left := trial.params.keys() - draw(fixed, sweep).keys():
                    raise ValueError(f"it has a value of {min(left)}, which is not swept there")
                create_trial(state=TrialState.RUNNING, params=trial.params, distributions=fixed.distributions)
        except ValueError as error:
            raise InputError(
                f"{folder}: trial {trial.number} lies outside the sweep.params asked for ({error}), but Optuna needs "
                f"one range for all trials: widen it, or {WAY_OUT}"
            ) from None
        distributions = fixed.distributions
    state = trial.state
    if state in (TrialState.COMPLETE, TrialState.FAIL):
        state = TrialState.FAIL if known is None else TrialState.COMPLETE
    if written_by["objectives"] != _settings(config)["objectives"]:
        intermediate = {}
    again = create_trial(
        state=state,
        values=[known[objective.metric] for objective in config.objectives]
        if known is not None and state == TrialState.COMPLETE
        else None,
        params=trial.params,
        distributions=distributions,
        user_attrs=trial.user_attrs,
        system_attrs={key: value for key, value in trial.system_attrs.items() if not key.startswith("constraints")},
        intermediate_values=intermediate,
    )
    again.datetime_start, again.datetime_complete = trial.datetime_start, trial.datetime_complete
    if known is not None and state == TrialState.COMPLETE:
        for metric, bound in sweep.constraints.items():
            again.set_constraint(metric, bound.excess(known[metric]))
    return again


def _write(
    config: StudyConfig, folder: Path, storage: BaseStorage, name: str, trials: Sequence[FrozenTrial]
) -> optuna.Study:
    """Write a study with its trials, and the points that are to be tried; it is whole once it says who wrote it."""
    study = optuna.create_study(
        study_name=name, storage=storage, directions=[objective.direction for objective in config.objectives]
    )
    study.set_user_attr(OWNER, {"id": _identity(config, folder), "folder": str(folder.resolve())})
    study.set_metric_names([objective.metric for objective in config.objectives])
    study.add_trials(trials)
    for values in [*config.sweep.start, *grid_points(config.sweep, config.seed)]:
        study.enqueue_trial(values, skip_if_exists=True)
    study.set_user_attr(WRITTEN_BY, _settings(config))
    return study


def _end_move(config: StudyConfig, folder: Path, storage: BaseStorage) -> None:
    """Give a study that was written beside the old one its name; one that is not whole is removed."""
    names, beside = optuna.get_all_study_names(storage), _beside(config)
    if beside not in names:
        return
    study = optuna.load_study(study_name=beside, storage=storage)
    _check_owner(config, folder, study)
    if WRITTEN_BY in study.user_attrs:
        if config.name in names:
            optuna.delete_study(study_name=config.name, storage=storage)
        optuna.copy_study(from_study_name=beside, from_storage=storage, to_storage=storage, to_study_name=config.name)
    optuna.delete_study(study_name=beside, storage=storage)


def _beside(config: StudyConfig) -> str:
    """The name of a study that is being written; no study of ofbnas is called so."""
    return f"{config.name} (being written)"


def _check_owner(config: StudyConfig, folder: Path, study: optuna.Study) -> None:
    """Refuse a study that belongs to another folder, in a storage that several may use."""
    if not _is_shared(config, folder):
        return
    owner, file = study.user_attrs.get(OWNER), folder / ID_FILE
    if owner is None or not file.is_file() or owner["id"] != file.read_text():
        whose = "made by other means" if owner is None else f"of the folder {owner['folder']}"
        raise InputError(
            f"sweep.storage {shown(config.sweep.storage or '')}: has a study {config.name} already, {whose}; give this "
            "one another name, or another database"
        )


def _identity(config: StudyConfig, folder: Path) -> str | None:
    """What tells a folder from others with the same name, wherever it is moved; None where its own journal does."""
    return identity_of(folder) if _is_shared(config, folder) else None


def identity_of(folder: Path) -> str:
    """A study's own name for itself, which it keeps wherever its folder is moved; given when it is first asked for."""
    file = folder / ID_FILE
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        beside = file.with_name(f"{ID_FILE}.writing")
        beside.write_text(uuid.uuid4().hex)
        beside.replace(file)
    return file.read_text()


def _is_shared(config: StudyConfig, folder: Path) -> bool:
    """Whether other folders may have their studies in the same storage."""
    file = file_of(config.sweep.storage, folder)
    return file is None or file.resolve().parent != folder.resolve()


def _settings(config: StudyConfig) -> dict[str, Any]:
    """The settings that Optuna's study of its trials follows from."""
    tree = config.model_dump(mode="json")
    sweep = tree["sweep"]
    points = {name: sweep[name] for name in ("params", "start", "constraints")}
    return {"objectives": tree["objectives"], "grid": sweep["sampler"] == "grid", **points}


def _written_by(study: optuna.Study, folder: Path) -> dict[str, Any]:
    """The settings that a study was written by; those of the folder for one that does not tell."""
    held = folder / "study.yaml"
    unknown = _settings(load_study(held)) if held.is_file() else {"objectives": None, "params": None}
    found: dict[str, Any] = study.user_attrs.get(WRITTEN_BY, unknown)
    return found

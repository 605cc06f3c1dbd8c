"""A study's trials in someone's own Ray Tune.

Tune owns a trial: its values, its place in the cluster, and its checkpoints. After an epoch of a
search, what the search needs to resume is handed to Tune with the report, so that any scheduler can
pause a trial, or let another one go on from it. Ray is imported as it is: the program around it has
its own settings of Ray.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import filelock
from ray import tune
from torch import Tensor

from ofbnas.config import ChoiceParam, IntParam, StudyConfig
from ofbnas.config.ranges import Param
from ofbnas.config.study_file import dump_study, parse_study
from ofbnas.errors import InputError, is_full
from ofbnas.files import durable
from ofbnas.files.documents import parse_json, read_text
from ofbnas.nas.perturbed import Origin, go_on_from
from ofbnas.study.images import data_of
from ofbnas.study.own import check_fields, prepared
from ofbnas.study.parent import meta_parent
from ofbnas.study.stopped import write_stopped
from ofbnas.study.trial import checkpoint_folder, reason_of, run_trial, write_failure
from ofbnas.study.tuning.points import without_unmet
from ofbnas.study.tuning.rungs import Reached
from ofbnas.table import store
from ofbnas.table.columns import KNOWN_AT_RUNGS, Row, comparable
from ofbnas.training.events import Callback, Phase

NUMBERS = "tune_trials.json"  # in a study's folder: the number of each of Tune's trials
ORIGIN = "origin.json"  # beside a checkpoint: the trial that wrote it


def trainable(config: StudyConfig, folder: Path, report_every: int) -> Callable[..., None]:
    """A trainable for Tune; see `ofbnas.tune.trainable`."""
    stopping = config.sweep.early_stopping
    if stopping is not None:
        raise InputError(
            f"sweep.early_stopping is {stopping.method}, but your Tuner's scheduler decides; leave "
            "it out, or --set sweep.early_stopping=null"
        )
    if report_every < 1:
        raise InputError(f"report_every is {report_every}, expected 1 epoch or more")
    made = prepared(config, folder)
    bound: Callable[..., None] = tune.with_parameters(
        ofbnas_trial,
        study=dump_study(config),
        folder=str(folder.resolve()),
        parent=made.parent,
        report_every=report_every,
    )
    return bound


def space(config: StudyConfig) -> dict[str, Any]:
    """What a study sweeps, as Tune's domains by dotted name."""
    return {name: _domain(param) for name, param in config.sweep.params.items()}


def _domain(param: Param) -> Any:
    """Tune's domain of a swept field's values."""
    if isinstance(param, ChoiceParam) or (param.step is not None and param.step != 1):
        return tune.choice(param.values())
    if isinstance(param, IntParam):
        integers = tune.lograndint if param.log else tune.randint
        return integers(param.low, param.high + 1)  # Tune leaves out the end
    numbers = tune.loguniform if param.log else tune.uniform
    return numbers(param.low, param.high)


def ofbnas_trial(
    config: dict[str, Any],
    study: str,
    folder: str,
    parent: Mapping[str, Tensor],
    report_every: int,
) -> None:
    """Run one of Tune's trials to its row; Tune calls this in a process of its own.

    Args:
        config: The trial's values by dotted name.
        study: YAML of the study.
        folder: The study's folder, which all nodes see.
        parent: The trained parent's tensors.
        report_every: Epochs between two reports.
    """
    settings, place = parse_study(study), Path(folder)
    number = number_of(place, tune.get_context().get_trial_id())
    trial = Origin(number, without_unmet(config, settings.sweep))
    row = store.read_row(place, number)
    if row is None or row.status == "failed":  # one that failed may be tried again
        try:
            row = _run(settings, trial, place, parent, report_every)
        except Exception as error:
            if not is_full(error):  # of which no trial is at fault
                write_failure(settings, trial.values, number, place, reason_of(error))
            raise
    tune.report({**_measured(row), "trial": number, "done": True})


def _run(
    config: StudyConfig,
    trial: Origin,
    folder: Path,
    parent: Mapping[str, Tensor],
    report_every: int,
) -> Row:
    """Run a trial to its row, from what Tune has kept of it."""
    check_fields(trial.values)
    epochs = config.with_values(trial.values).search.epochs
    gpus = tune.get_context().get_trial_resources().required_resources.get("GPU", 0)
    inherited = _restore(config, trial, folder)
    data = data_of(config).to("cuda" if gpus else "cpu")
    return run_trial(
        config,
        trial.values,
        trial.trial,
        folder,
        data,
        parent,
        [_Reports(trial, checkpoint_folder(folder, trial.trial), inherited)],
        gpus,
        rungs=range(report_every, config.last_rung(epochs) + 1, report_every),
        inherited=json.dumps(inherited) if inherited else None,
    )


def _restore(config: StudyConfig, trial: Origin, folder: Path) -> dict[str, Any]:
    """Put what Tune has kept to where the trial's search resumes from.

    Returns:
        By epoch, from whom the trial has gone on: what the row says of it.
    """
    kept = tune.get_checkpoint()
    if kept is None:
        return {}
    place = checkpoint_folder(folder, trial.trial)
    durable.make_folder(place)
    with kept.as_directory() as source:
        for file in Path(source).iterdir():
            with durable.writing(place / file.name) as copy, file.open("rb") as original:
                shutil.copyfileobj(original, copy)

    origin = parse_json(read_text(place / ORIGIN, "a trial's origin"), place / ORIGIN)
    inherited: dict[str, Any] = origin["inherited"]
    was = Origin(origin["trial"], origin["values"])
    if was != trial:
        go_on_from(place / "search.pt", config, meta_parent(config).axes, was, trial)
        inherited[str(origin["epoch"])] = {"trial": was.trial, "values": was.values}
    return inherited


class _Reports(Callback):
    """Reports a search to Tune, with its checkpoint."""

    def __init__(self, trial: Origin, checkpoints: Path, inherited: Mapping[str, Any]) -> None:
        self.trial = trial
        self.checkpoints = checkpoints
        self.inherited = inherited
        self.metrics: dict[str, float] = {}

    def on_rung(self, epoch: int, metrics: dict[str, float]) -> None:
        """Keep what is reported once the epoch's checkpoint is written."""
        self.metrics = {name: metrics[name] for name in (*KNOWN_AT_RUNGS, "seconds")}

    def on_epoch(self, phase: Phase, epoch: int, epochs: int, losses: Mapping[str, float]) -> None:
        """Report a search's epoch that is a rung; here Tune may end the process."""
        if phase != "search" or not self.metrics:
            return
        number, values = self.trial
        origin = {"trial": number, "values": values, "epoch": epoch, "inherited": self.inherited}
        durable.write(self.checkpoints / ORIGIN, json.dumps(origin))
        report = {"trial": number, "epoch": epoch, **self.metrics}
        self.metrics = {}
        tune.report(report, checkpoint=tune.Checkpoint.from_directory(str(self.checkpoints)))


def _measured(row: Row) -> dict[str, Any]:
    """What a row says of its trial by number, for Tune's results."""
    values = {name: getattr(row, name) for name in comparable()}
    epochs = (row.search_epochs or 0) + (row.finetune_epochs or 0)
    return {name: value for name, value in values.items() if value is not None} | {"epoch": epochs}


def number_of(folder: Path, trial_id: str) -> int:
    """The number of one of Tune's trials in a study; a new trial gets the next one.

    Tune names trials by random letters, and the table numbers them.
    """
    durable.make_folder(folder)
    with filelock.FileLock(str(folder / f".{NUMBERS}.lock")):
        numbers = _numbers(folder)
        if trial_id not in numbers:
            numbers[trial_id] = max(store.next_trial(folder), *(n + 1 for n in numbers.values()), 0)
            durable.write(folder / NUMBERS, json.dumps(numbers))
        return numbers[trial_id]


def _numbers(folder: Path) -> dict[str, int]:
    """The numbers that have been given, by Tune's name of a trial."""
    file = folder / NUMBERS
    if not file.is_file():
        return {}
    numbers: dict[str, int] = parse_json(read_text(file, "numbers of trials"), file)
    return numbers


class Rows(tune.Callback):  # type: ignore[misc]  # ray has no types
    """Writes the rows of trials that Tune stopped or lost, in the process of the Tuner."""

    def __init__(self, config: StudyConfig, folder: Path) -> None:
        self.config = config
        self.folder = folder
        self.parent = meta_parent(config).costs()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Write the row of a trial that a scheduler or a stopper has ended."""
        number = number_of(self.folder, trial.trial_id)
        result = trial.last_result
        if store.has_row(self.folder, number) or "epoch" not in result:
            return
        gpus = trial.placement_group_factory.required_resources.get("GPU", 0)
        write_stopped(
            self.config,
            without_unmet(trial.config, self.config.sweep),
            self.folder,
            Reached(number, result["epoch"], {name: result[name] for name in KNOWN_AT_RUNGS}),
            seconds=result["seconds"],
            gpus=gpus,
            parent=self.parent,
        )

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Write the row of a trial whose process was lost more often than allowed."""
        number = number_of(self.folder, trial.trial_id)
        if not store.has_row(self.folder, number):
            values = without_unmet(trial.config, self.config.sweep)
            write_failure(self.config, values, number, self.folder, "its process was lost")

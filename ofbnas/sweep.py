"""A study: Optuna samples trials, Ray Tune runs them. The journal and the table are its only state.

A study goes on by looking at those two: a trial with a row is over, a trial that Optuna has as running but that has
no row is run again under its old number and values, and new ones are asked for until there are `n_trials`.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import signal
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import filelock
import optuna
import torch
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from ofbnas import table
from ofbnas.budget import option_widths, window_below
from ofbnas.config import ChoiceParam, IntParam, StudyConfig, SweepConfig, dump_study, load_study
from ofbnas.cost import cost_of, widths_of
from ofbnas.data import load_data
from ofbnas.errors import InputError
from ofbnas.ray_quietly import OptunaSearch, ray, tune
from ofbnas.training import evaluate
from ofbnas.trial import run_trial, trained_parent, untrained_parent, versions, write_failure

REPORT_EVERY = 1.0  # seconds between two reports of a running trial
log = logging.getLogger("ofbnas")


class View(Protocol):
    """What is told of a study while it runs."""

    def parent(self, epoch: int, epochs: int) -> None:
        """The parent was trained for another epoch."""

    def begin(self, done: int, wanted: int) -> None:
        """Trials are about to start; `done` are over already."""

    def started(self, trial: int) -> None:
        """A trial runs."""

    def progress(self, trial: int, phase: str, epoch: int, epochs: int) -> None:
        """A trial is in an epoch of "search" or "finetune"."""

    def ended(self, trial: int) -> None:
        """A trial has its row."""


@dataclass(frozen=True)
class Outcome:
    """How a run of a study ended: trials that have a row, before and after it, failed ones, and trials wanted."""

    before: int
    done: int
    failed: int
    wanted: int


def run_study(config: StudyConfig, folder: Path, view: View) -> Outcome:
    """Run a study, or what is left of it.

    Args:
        config: The study.
        folder: Its folder; made if need be.
        view: Told what happens.

    Raises:
        InputError: The folder holds another study, another driver runs it, or its values are out of reach.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    _check_folder(config, folder)
    _check_reach(config)
    data = load_data(**config.data.model_dump())
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(str(folder / ".lock"), timeout=0), _log_to(folder / "study.log"):
            return _run_locked(config, folder, data, view)
    except filelock.Timeout:
        raise InputError(f"{folder}: another process runs this study; wait for it, or give --output") from None


def storage_of(folder: Path) -> JournalStorage:
    """The Optuna storage of a study's folder."""
    return JournalStorage(JournalFileBackend(str(folder / "journal.log")))


def _run_locked(config: StudyConfig, folder: Path, data: Any, view: View) -> Outcome:
    before, wanted = num_done(folder), config.sweep.n_trials
    if before >= wanted and not _left_running(config, folder):
        return _outcome(folder, before, wanted)
    search = StudySearch(config, folder)
    if (before := num_done(folder)) >= wanted:
        return _outcome(folder, before, wanted)
    (folder / "study.yaml").write_text(_header() + dump_study(config), encoding="utf-8")
    epochs = config.pretrain.epochs if config.pretrain else 0
    parent = trained_parent(config, data, on_epoch=lambda epoch, _: view.parent(epoch, epochs))
    accuracy = evaluate(parent.model, data.test)
    log.info("parent %s: top-1 %.2f %% on the test split", config.model.name, accuracy.top1)
    view.begin(before, wanted)
    resources = config.resources
    with _ray(), _interrupts():
        trainable = tune.with_parameters(
            _trainable,
            study=dump_study(config),
            folder=str(folder.resolve()),
            parent=parent.model.state_dict(),
        )
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial}),
            tune_config=tune.TuneConfig(
                search_alg=search,
                num_samples=wanted - before,
                max_concurrent_trials=resources.max_concurrent or _fitting(config),
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="ray",
                storage_path=str((folder / ".tune").resolve()),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=resources.max_failures),
                callbacks=[_Tell(config, folder, view)],
            ),
        )
        tuner.fit()
    shutil.rmtree(folder / ".tune", ignore_errors=True)
    return _outcome(folder, before, wanted)


def _outcome(folder: Path, before: int, wanted: int) -> Outcome:
    status = table.read_table(folder)["status"]
    return Outcome(before, len(status), int((status == "failed").sum()), wanted)


class StudySearch(OptunaSearch):  # type: ignore[misc]  # ray has no types
    """Optuna's sampler for Ray Tune, with Optuna's study kept true.

    Every trial Tune runs is a trial of the study, by its number: told COMPLETE with the values of its row, or FAIL.
    What an earlier driver left running is handed out first. Nothing is restored from Tune's own snapshots.
    """

    def __init__(self, config: StudyConfig, folder: Path) -> None:
        """Open the study in a folder, or make it, and bring it in line with the table."""
        directions = [objective.direction for objective in config.objectives]
        super().__init__(
            space=lambda trial: None,
            metric=[objective.metric for objective in config.objectives],
            mode=["max" if direction == "maximize" else "min" for direction in directions],
            storage=storage_of(folder),
            study_name=config.name,
        )
        self.folder, self.sweep = folder, config.sweep
        self.numbers: dict[str, int] = {}
        self.study: optuna.Study = self._ot_study
        if self.study.metric_names is None:
            self.study.set_metric_names(self.metric)
        # Another seed on each start: the same one would draw the same values again.
        self.study.sampler = sampler_of(config.sweep, config.seed + len(self.study.get_trials(deepcopy=False)))
        self.left_running = self._reconcile(config)

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """A trial's number and the values of its swept fields."""
        left = self.left_running
        trial = optuna.Trial(self.study, left.pop(0)._trial_id) if left else self.study.ask()
        self.numbers[trial_id] = trial.number
        return {"trial": trial.number, "params": draw(trial, self.sweep)}

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Progress is of no interest to the sampler."""

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Tell Optuna what the trial's row says; a trial without one failed."""
        self._tell(self.numbers[trial_id], read_row(self.folder, self.numbers[trial_id]))

    def save(self, checkpoint_path: str) -> None:
        """Leave an empty snapshot: the journal has everything."""
        Path(checkpoint_path).touch()

    def _tell(self, number: int, row: Mapping[str, Any] | None) -> None:
        values = [row[metric] for metric in self.metric] if row and row["status"] == "complete" else None
        if values is None or not all(value is not None and math.isfinite(value) for value in values):
            self.study.tell(number, state=TrialState.FAIL)
        else:
            self.study.tell(number, values)

    def _reconcile(self, config: StudyConfig) -> list[optuna.trial.FrozenTrial]:
        """Bring an earlier driver's leavings in order; the trials that have to be run again."""
        again = []
        for trial in self.study.get_trials(deepcopy=False):
            row = read_row(self.folder, trial.number)
            if trial.state == TrialState.RUNNING and row is None:
                again.append(trial)
            elif trial.state == TrialState.RUNNING:
                self._tell(trial.number, row)
            elif row is None:
                reason = "the driver was killed before the reason was recorded"
                write_failure(config, trial.params, trial.number, self.folder, reason)
        return again


def sampler_of(sweep: SweepConfig, seed: int) -> optuna.samplers.BaseSampler:
    """Optuna's sampler of a sweep."""
    match sweep.sampler:
        case "tpe":
            startup = min(10, max(1, sweep.n_trials // 2))
            return optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=startup)
        case "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed)
        case "random":
            return optuna.samplers.RandomSampler(seed=seed)
        case "qmc":
            return optuna.samplers.QMCSampler(seed=seed, scramble=True)


def draw(trial: optuna.Trial, sweep: SweepConfig) -> dict[str, Any]:
    """A trial's values for the swept fields; those it has already stay."""
    values: dict[str, Any] = {}
    for name, param in sweep.params.items():
        if isinstance(param, ChoiceParam):
            values[name] = trial.suggest_categorical(name, param.choices)
        elif isinstance(param, IntParam):
            values[name] = trial.suggest_int(name, param.low, param.high, log=param.log, step=param.step)
        else:
            values[name] = trial.suggest_float(name, param.low, param.high, log=param.log, step=param.step)
    return values


def num_done(folder: Path) -> int:
    """Trials that have a row."""
    return len(list((folder / table.FOLDER).glob("trial-*.parquet")))


def _left_running(config: StudyConfig, folder: Path) -> bool:
    """Whether Optuna still has trials as running."""
    study = optuna.load_study(study_name=config.name, storage=storage_of(folder))
    return any(trial.state == TrialState.RUNNING for trial in study.get_trials(deepcopy=False))


def read_row(folder: Path, trial: int) -> dict[str, Any] | None:
    """A trial's row, None if it has none."""
    file = folder / table.FOLDER / table.trial_file(trial)
    return table.to_records(table.read_table(file))[0] if file.is_file() else None


def _trainable(config: dict[str, Any], study: str, folder: str, parent: Mapping[str, torch.Tensor]) -> None:
    """What runs in a worker: one trial, which ends with its row written."""
    context = tune.get_context()
    resources = context.get_trial_resources().required_resources
    torch.set_num_threads(max(1, int(resources.get("CPU", 1))))
    device = "cuda" if resources.get("GPU") else "cpu"
    values, last = StudyConfig.model_validate(yaml.safe_load(study)), 0.0

    def report(phase: str, epoch: int, epochs: int) -> None:
        nonlocal last
        if time.monotonic() - last >= REPORT_EVERY:
            last = time.monotonic()
            tune.report({"trial": config["trial"], "phase": phase, "epoch": epoch, "epochs": epochs})

    place = Path(folder)
    with _log_to(place / "study.log"):
        try:
            data = load_data(**values.data.model_dump()).to(device)
            run_trial(values, config["params"], config["trial"], place, data, parent, report)
        except Exception as error:  # whatever a trial dies of is its row's reason, and the others go on
            log.exception("trial %d failed", config["trial"])
            write_failure(values, config["params"], config["trial"], place, _reason(error))
    tune.report({"trial": config["trial"], "phase": "ended", "epoch": 0, "epochs": 0})


class _Tell(tune.Callback):  # type: ignore[misc]  # ray has no types
    """Passes Tune's events on to the view, and writes the rows of trials whose process was lost."""

    def __init__(self, config: StudyConfig, folder: Path, view: View) -> None:
        self.config, self.folder, self.view = config, folder, view

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks, which a view cannot follow; nothing is restored from that."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.view.started(trial.config["trial"])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: Mapping[str, Any], **info: Any
    ) -> None:
        if result["phase"] != "ended":
            self.view.progress(trial.config["trial"], result["phase"], result["epoch"], result["epochs"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.view.ended(trial.config["trial"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number = trial.config["trial"]
        if read_row(self.folder, number) is None:
            lines = (trial.get_error() or "its process was lost").strip().splitlines()
            write_failure(self.config, trial.config["params"], number, self.folder, lines[-1][:500])
        self.view.ended(number)


def _check_folder(config: StudyConfig, folder: Path) -> None:
    """Refuse to continue a folder with another study than the one it holds."""
    file = folder / "study.yaml"
    if not file.is_file():
        return
    held, asked = (study.model_dump(mode="json") for study in (load_study(file), config))
    held["sweep"]["n_trials"] = asked["sweep"]["n_trials"]
    held["resources"] = asked["resources"]
    if differing := [name for name in _leaves(held | asked) if _at(held, name) != _at(asked, name)]:
        name = differing[0]
        raise InputError(
            f"{folder}: holds a study with {name} {_at(held, name)}, asked for was {_at(asked, name)}: give --output "
            "a new folder, or run the study as it is"
        )


def _check_reach(config: StudyConfig) -> None:
    """Check that the parent can be made and every budget the sweep may ask for can be met."""
    parent = untrained_parent(config)
    asked = [config.search.budget]
    for name, param in config.sweep.params.items():
        if name.startswith("search.budget."):
            asked = [config.with_values({name: value}).search.budget for value in param.ends()]
    for budget in asked:
        cost = cost_of(parent.model, parent.axes, budget.metric())
        window_below(cost, option_widths(parent.axes), budget.limit(cost.of(widths_of(parent.axes))), budget.tolerance)


def _fitting(config: StudyConfig) -> int:
    """Trials that fit on the cluster at a time."""
    have, resources = ray.cluster_resources(), config.resources
    fits = have.get("CPU", 0) / resources.cpus_per_trial
    if resources.gpus_per_trial:
        fits = min(fits, have.get("GPU", 0) / resources.gpus_per_trial)
    if fits < 1:
        raise InputError(
            f"a trial needs {resources.cpus_per_trial:g} CPUs and {resources.gpus_per_trial:g} GPUs, Ray has "
            f"{have.get('CPU', 0):g} and {have.get('GPU', 0):g}: lower resources.cpus_per_trial or gpus_per_trial"
        )
    return int(fits)


@contextmanager
def _ray() -> Iterator[None]:
    """A Ray of this process' own, quiet."""
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    ray.init(
        address="local",
        num_cpus=os.cpu_count(),
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.CRITICAL,
        configure_logging=True,
    )
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _interrupts() -> Iterator[None]:
    """SIGTERM ends the run as Ctrl-C does, which Tune answers by stopping its trials."""

    def interrupt(number: int, frame: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _log_to(file: Path) -> Iterator[None]:
    """Send this package's log, and warnings, to a file."""
    handler = logging.FileHandler(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            log.removeHandler(handler)
            handler.close()


def _reason(error: Exception) -> str:
    """An exception in one line of a row."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]


def _header() -> str:
    """Comment at the head of a resolved study."""
    found = ", ".join(f"{name} {number}" for name, number in versions().items())
    return f"# The study as it was run, by {found}.\n"


def _leaves(tree: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Dotted names of all values in a tree of mappings."""
    for key, value in tree.items():
        here = f"{path}.{key}" if path else key
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, here)
        else:
            yield here


def _at(tree: Any, name: str) -> Any:
    """A value by its dotted name, None where there is none."""
    for key in name.split("."):
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree

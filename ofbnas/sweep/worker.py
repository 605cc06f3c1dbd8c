"""Ray's side of a study: what runs in a worker, and what the driver hears of it."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
import yaml

from ofbnas import table
from ofbnas.config import StudyConfig
from ofbnas.errors import TransferError
from ofbnas.parent import data_of
from ofbnas.searcher import OnRung
from ofbnas.sweep.disk import EarlyEnd, is_full
from ofbnas.sweep.ranks import WorkerLostError, device_of, others
from ofbnas.sweep.ray_quietly import ray, tune
from ofbnas.sweep.sampling import StudySearch
from ofbnas.sweep.shared import LOG, SharedStorage, deliver, keep, workplace
from ofbnas.trial import Report, run_trial, write_failure

REPORTS_PER_SECOND = 50  # of all trials together, so that many of them do not keep the driver busy
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


def _say_nothing(*told: Any) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Work:
    """One trial as its workers are told it: plain values, for they may run on other nodes.

    Attributes:
        study: YAML of the study.
        folder: The study's.
        storage: Address of the study's shared storage, None where all nodes see the folder.
        trial: Number.
        params: Swept fields by dotted name, with this trial's values.
    """

    study: str
    folder: str
    storage: str | None
    trial: int
    params: dict[str, Any]

    @cached_property
    def config(self) -> StudyConfig:
        """The study."""
        return StudyConfig.model_validate(yaml.safe_load(self.study))

    def run(
        self,
        rank: int,
        parent: Mapping[str, torch.Tensor],
        report: Report = _say_nothing,
        on_rung: OnRung = _say_nothing,
    ) -> None:
        """Run the trial to its row, alone or together with its other workers, of which only the first reports."""
        config, storage = self.config, self._shared()
        cpus, gpus = config.resources.per_worker()
        torch.set_num_threads(max(1, int(cpus)))
        data = data_of(config).to(device_of(gpus))

        def keep_and_report(phase: str, epoch: int, epochs: int) -> None:
            if rank == 0:
                keep(place, storage, self.trial)
            report(phase, epoch, epochs)

        with self.placed() if rank == 0 else nullcontext(Path(self.folder)) as place:  # others write nothing
            log.info("trial %d runs on %s", self.trial, ray.util.get_node_ip_address())
            held = config.resources.gpus_per_trial
            run_trial(config, self.params, self.trial, place, data, parent, keep_and_report, held, on_rung)
            if rank == 0:
                deliver(place, storage, self.trial)

    def fail(self, place: Path, reason: str) -> None:
        """Write the row of a trial that failed."""
        write_failure(self.config, self.params, self.trial, place, reason)
        deliver(place, self._shared(), self.trial)

    def over(self) -> bool:
        """Whether the trial has its row: a worker may have died between that and its last word."""
        if (storage := self._shared()) is not None:
            return storage.has_result(self.trial)
        return table.has_row(Path(self.folder), self.trial)

    @contextmanager
    def placed(self) -> Iterator[Path]:
        """The folder to work in, with a log there."""
        with workplace(Path(self.folder), self._shared(), self.trial) as place, log_to(place / LOG):
            yield place

    def _shared(self) -> SharedStorage | None:
        return None if self.storage is None else SharedStorage(self.storage)


def trainable(
    config: dict[str, Any],
    study: str,
    folder: str,
    storage: str | None,
    parent: Mapping[str, torch.Tensor],
    report_every: float,
) -> None:
    """What Tune runs in a process of its own: the first worker of one trial, which ends with its row written.

    Args:
        config: The trial's number and swept values.
        study: YAML of the study.
        folder: The study's.
        storage: Address of its shared storage, None where all nodes see the folder.
        parent: The trained parent's tensors.
        report_every: Seconds between two reports of progress, at least.
    """
    work = Work(study, folder, storage, config["trial"], config["params"])
    last = 0.0

    def tell(phase: str, epoch: int = 0, epochs: int = 0, **more: object) -> None:
        tune.report({"trial": work.trial, "phase": phase, "epoch": epoch, "epochs": epochs, **more})

    def report(phase: str, epoch: int, epochs: int) -> None:
        nonlocal last
        if time.monotonic() - last >= report_every:
            last = time.monotonic()
            tell(phase, epoch, epochs)

    def on_rung(epoch: int, told: Mapping[str, float]) -> None:
        tell("rung", epoch, 0, **told)

    try:
        if not work.over():
            resources = work.config.resources
            with others(work.run, parent, resources.workers_per_trial, *resources.per_worker()):
                work.run(0, parent, report, on_rung)
    except Exception as error:
        if is_full(error):
            tell("full", place=ray.util.get_node_ip_address())
            return
        if isinstance(error, TransferError | WorkerLostError):  # nothing is wrong with the trial: it is started again
            raise
        if not work.over():  # whatever else a trial dies of is its row's reason, and the others go on
            with work.placed() as place:
                log.exception("trial %d failed", work.trial)
                work.fail(place, f"{type(error).__name__}: {' '.join(str(error).split())}"[:500])
    tell("ended")


class Tell(tune.Callback):  # type: ignore[misc]  # ray has no types
    """Passes Tune's events on to the view, and writes the rows of trials whose process was lost."""

    def __init__(self, config: StudyConfig, search: StudySearch, end: EarlyEnd, view: View) -> None:
        self.config, self.search, self.folder, self.end, self.view = config, search, search.folder, end, view

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks, which a view cannot follow; nothing is restored from that."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial runs."""
        self.view.started(trial.config["trial"])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: Mapping[str, Any], **info: Any
    ) -> None:
        """A trial reports its epoch."""
        if result["phase"] in ("search", "finetune"):
            self.view.progress(trial.config["trial"], result["phase"], result["epoch"], result["epochs"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial is over, or is left for the next start where the disk is full."""
        if self.search.row(trial.config["trial"]) is not None:
            self.view.ended(trial.config["trial"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process was lost more often than allowed, or the shared storage, which is no trial's fault."""
        number = trial.config["trial"]
        if self.search.row(number) is None:
            line = (trial.get_error() or "its process was lost").strip().splitlines()[-1]
            _, lost, why = line.partition(f"{TransferError.__name__}: ")
            if lost:
                self.end.say(TransferError(why))
                return
            write_failure(self.config, trial.config["params"], number, self.folder, line[:500])
            self.search.tell(number)
        self.view.ended(number)


class _Log(logging.FileHandler):
    """A log that a full disk does not end anything for, nor fills the screen with."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Leave out a line that cannot be written."""


@contextmanager
def log_to(file: Path) -> Iterator[None]:
    """Send this package's log, and warnings, to a file."""
    handler = _Log(file, encoding="utf-8")
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

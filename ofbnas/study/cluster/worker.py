"""What runs in a trial's process: the trial, its uploads, its reports to Tune, and its log."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ofbnas.config import StudyConfig
from ofbnas.config.study_file import parse_study
from ofbnas.errors import TransferError, WorkerLostError, is_full
from ofbnas.study.cluster.ranks import device_of, others
from ofbnas.study.cluster.ray_import import ray
from ofbnas.study.cluster.shared_storage import (
    LOG,
    SharedStorage,
    upload_checkpoints,
    upload_results,
    working_folder,
)
from ofbnas.study.cluster.tune_import import tune
from ofbnas.study.images import data_of
from ofbnas.study.trial import reason_of, run_trial, write_failure
from ofbnas.table import store
from ofbnas.training.events import Callback, Phase

REPORTS_PER_SECOND = 50  # of all trials together, so that many trials do not keep the driver busy
log = logging.getLogger("ofbnas")


@dataclass(frozen=True)
class Work:
    """One trial, as it is sent to its workers: plain values, since they may run on other nodes.

    Attributes:
        study: YAML of the study.
        folder: The study's folder.
        storage: Address of the study's shared storage, None where all nodes see the folder.
        trial: Its number.
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
        return parse_study(self.study)

    def run(
        self,
        rank: int,
        parent: Mapping[str, torch.Tensor],
        callbacks: Sequence[Callback] = (),
    ) -> None:
        """Run the trial until its row is written, alone or together with its other workers.

        Args:
            rank: This worker's number; only the first, 0, writes files and has callbacks.
            parent: The trained parent's tensors.
            callbacks: The first worker's.
        """
        config = self.config
        storage = self._shared()
        cpus, gpus = config.resources.per_worker()
        torch.set_num_threads(max(1, int(cpus)))
        data = data_of(config).to(device_of(gpus))

        # Only the first worker logs, and works in a folder of its own where there is a storage.
        is_first = rank == 0
        with self.opened() if is_first else nullcontext(Path(self.folder)) as folder:
            log.info("trial %d runs on %s", self.trial, ray.util.get_node_ip_address())
            if is_first:
                callbacks = [_Upload(folder, storage, self.trial), *callbacks]
            gpus_held = config.resources.gpus_per_trial
            run_trial(
                config,
                self.params,
                self.trial,
                folder,
                data,
                parent,
                callbacks,
                gpus_held,
            )
            if is_first:
                upload_results(folder, storage, self.trial)

    def fail(self, folder: Path, reason: str) -> None:
        """Write the row of the trial, which failed, and upload it."""
        write_failure(self.config, self.params, self.trial, folder, reason)
        upload_results(folder, self._shared(), self.trial)

    def over(self) -> bool:
        """Whether the trial has its row.

        An earlier process may have died after it wrote the row, before it reported the end.
        """
        storage = self._shared()
        if storage is not None:
            return storage.has_result(self.trial)
        return store.has_row(Path(self.folder), self.trial)

    @contextmanager
    def opened(self) -> Iterator[Path]:
        """The folder to work in, where this process logs meanwhile."""
        with (
            working_folder(Path(self.folder), self._shared(), self.trial) as folder,
            log_to(folder / LOG),
        ):
            yield folder

    def _shared(self) -> SharedStorage | None:
        """The study's shared storage, None where it has none."""
        return None if self.storage is None else SharedStorage(self.storage)


class _Upload(Callback):
    """Uploads a trial's checkpoints to the study's shared storage, if it has one."""

    def __init__(
        self,
        folder: Path,
        storage: SharedStorage | None,
        trial: int,
    ) -> None:
        self.folder = folder
        self.storage = storage
        self.trial = trial

    def on_epoch(
        self,
        phase: Phase,
        epoch: int,
        epochs: int,
        losses: Mapping[str, float],
    ) -> None:
        """Upload the epoch's checkpoint."""
        upload_checkpoints(self.folder, self.storage, self.trial)


class _Reports(Callback):
    """Reports a trial's progress and its history to Tune."""

    def __init__(self, trial: int, interval: float) -> None:
        """Set up for one trial.

        Args:
            trial: Its number.
            interval: Least number of seconds between two reports of epochs.
        """
        self.trial = trial
        self.interval = interval
        self.last = 0.0
        self.records: list[Mapping[str, Any]] = []  # that are not reported yet

    def send(self, phase: str, epoch: int = 0, epochs: int = 0, **more: Any) -> None:
        """Report at once, and with it the records that have come since the last report."""
        records = self.records
        self.records = []
        tune.report(
            {
                "trial": self.trial,
                "phase": phase,
                "epoch": epoch,
                "epochs": epochs,
                "records": records,
                **more,
            }
        )

    def on_record(self, record: Mapping[str, Any]) -> None:
        """Keep a record for the next report."""
        self.records.append(record)

    def on_epoch(
        self,
        phase: Phase,
        epoch: int,
        epochs: int,
        losses: Mapping[str, float],
    ) -> None:
        """Report an epoch, unless the last report is too recent."""
        now = time.monotonic()
        if now - self.last >= self.interval:
            self.last = now
            self.send(phase, epoch, epochs)

    def on_rung(self, epoch: int, metrics: dict[str, float]) -> None:
        """Report a rung, at which Tune's scheduler may stop the trial."""
        self.send("rung", epoch, 0, **metrics)


def trainable(
    config: dict[str, Any],
    study: str,
    folder: str,
    storage: str | None,
    parent: Mapping[str, torch.Tensor],
    report_every: float,
) -> None:
    """Run one trial to its row, as its first worker; Tune calls this in a process of its own.

    Args:
        config: The trial's number and swept values.
        study: YAML of the study.
        folder: The study's folder.
        storage: Address of its shared storage, None where all nodes see the folder.
        parent: The trained parent's tensors.
        report_every: Least number of seconds between two reports of progress.

    Raises:
        TransferError: The shared storage could not be reached.
        WorkerLostError: Another worker of the trial died.
    """
    work = Work(study, folder, storage, config["trial"], config["params"])
    reports = _Reports(work.trial, report_every)
    try:
        if not work.over():
            resources = work.config.resources
            cpus, gpus = resources.per_worker()
            with others(work.run, parent, resources.workers_per_trial, cpus, gpus):
                work.run(0, parent, [reports])
    except Exception as error:
        if is_full(error):
            reports.send("full", host=ray.util.get_node_ip_address())
            return
        # The trial is not at fault here: Tune starts it again.
        if isinstance(error, TransferError | WorkerLostError):
            raise
        # Any other error becomes the reason in the trial's row, and the study continues.
        if not work.over():
            with work.opened() as working:
                log.exception("trial %d failed", work.trial)
                work.fail(working, reason_of(error))
    reports.send("ended")


class _Log(logging.FileHandler):
    """A log file that ignores errors: a full disk must neither end a trial nor flood the screen."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Drop the line that could not be written."""


@contextmanager
def log_to(file: Path) -> Iterator[None]:
    """Write this package's log to a file while the block runs, and hide warnings."""
    handler = _Log(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    level, propagate = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            log.removeHandler(handler)
            log.setLevel(level)
            log.propagate = propagate
            handler.close()

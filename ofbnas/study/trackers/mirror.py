"""Passes what happens in a study on to its trackers, none of which can delay or end it."""

from __future__ import annotations

import logging
import queue
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import optuna

from ofbnas.config import StudyConfig
from ofbnas.config.trackers import (
    MlflowConfig,
    Options,
    TensorBoardConfig,
    TrackerName,
    WandbConfig,
    options_of,
)  # fmt: skip
from ofbnas.errors import InputError, one_line
from ofbnas.study.trackers.tracker import Tracker, values_of
from ofbnas.study.tuning.owner import identity_of
from ofbnas.table.columns import Row
from ofbnas.table.plot import plot_front
from ofbnas.table.store import read_table

# Module of each tracker, and the package that it is installed with.
PACKAGES: dict[TrackerName, tuple[str, str]] = {
    "tensorboard": ("tensorboardX", "tensorboardX"),
    "mlflow": ("mlflow", "mlflow-skinny"),
    "wandb": ("wandb", "wandb"),
    "optuna_dashboard": ("optuna_dashboard", "optuna-dashboard"),
}
MAX_WAITING = 10_000  # events of a tracker that does not keep up
CLOSE_SECONDS = 30.0  # that a study waits at its end for its trackers
PICTURE = "front.png"

Event = Callable[[Tracker], None]
Warn = Callable[[str], None]
log = logging.getLogger("ofbnas")


def check_trackers(config: StudyConfig) -> None:
    """Check, before a study starts, that the packages of its trackers are installed.

    Raises:
        InputError: One is not.
    """
    for name in options_of(config.sweep.trackers):
        module, package = PACKAGES[name]
        if find_spec(module) is None:
            raise InputError(
                f"sweep.trackers has {name}, but the package {package} is not installed; "
                "pip install 'ofbnas[trackers]' installs it, or leave the tracker out"
            )


class Mirror:
    """The trackers of a study, each in a thread of its own."""

    def __init__(self, config: StudyConfig, folder: Path, study: optuna.Study, warn: Warn) -> None:
        """Start the trackers.

        Args:
            config: The study.
            folder: Its folder.
            study: Optuna's study.
            warn: Shows a line to the user, from any thread.
        """
        self.folder = folder
        self.outlets: list[_Outlet] = []
        for name, options in options_of(config.sweep.trackers).items():
            # The identity is made here, as two threads might make two.
            make = partial(_made, options, config, folder, identity_of(folder), study)
            self.outlets.append(_Outlet(name, make, warn))

    def begin(self, trial: int, params: Mapping[str, Any]) -> None:
        """An attempt at a trial begins."""
        self._send(lambda tracker: tracker.begin(trial, params))

    def records(self, trial: int, records: Sequence[Mapping[str, Any]]) -> None:
        """A trial has reported records of its history."""
        for record in records:
            if record["kind"] == "epoch":
                self._send(partial(_send_epoch, trial, record))

    def end(self, row: Row) -> None:
        """A trial has its row."""
        self._send(lambda tracker: tracker.end(row))

    def close(self) -> None:
        """Send a picture of the front, and wait a while for the trackers to finish."""
        if not self.outlets:
            return
        with tempfile.TemporaryDirectory(prefix="ofbnas-front-") as place:
            picture = Path(place) / PICTURE
            try:
                plot_front({"study": read_table(self.folder)}, picture)
                self._send(lambda tracker: tracker.picture("front", picture))
            except (InputError, OSError) as error:
                log.warning("no picture for the trackers: %s", error)
            for outlet in self.outlets:
                outlet.close()

    def _send(self, event: Event) -> None:
        """Give an event to each tracker."""
        for outlet in self.outlets:
            outlet.put(event)


class _Outlet:
    """A tracker's thread, and the events that wait for it."""

    def __init__(self, name: str, make: Callable[[], Tracker], warn: Warn) -> None:
        self.name = name
        self.make = make
        self.warn = warn
        self.failed = False
        self.events: queue.Queue[Event | None] = queue.Queue(MAX_WAITING)
        self.thread = threading.Thread(target=self._run, name=f"tracker {name}", daemon=True)
        self.thread.start()

    def put(self, event: Event | None) -> None:
        """Add an event; after a failure none is taken."""
        if self.failed:
            return
        try:
            self.events.put_nowait(event)
        except queue.Full:
            self._fail("does not keep up with the study")

    def close(self) -> None:
        """Let the tracker finish, as long as that does not take too long."""
        if self.failed:
            return
        self.put(None)
        self.thread.join(CLOSE_SECONDS)
        if self.thread.is_alive():
            self._fail(f"has not finished after {CLOSE_SECONDS:.0f} s; some of it may be missing")

    def _run(self) -> None:
        """Make the tracker, and give it one event after the other."""
        try:
            tracker = self.make()
            while (event := self.events.get()) is not None:
                event(tracker)
            tracker.close()
        except Exception as error:
            log.exception("tracker %s failed", self.name)
            self._fail(one_line(error, 200))

    def _fail(self, why: str) -> None:
        """Warn once, and take no more events."""
        if not self.failed:
            self.failed = True
            self.warn(f"tracker {self.name}: {why}; the study goes on without it")


def _send_epoch(trial: int, record: Mapping[str, Any], tracker: Tracker) -> None:
    """Give a record of an epoch to a tracker."""
    tracker.epoch(trial, record["phase"], record["epoch"], values_of(record))


def _made(
    options: Options, config: StudyConfig, folder: Path, identity: str, study: optuna.Study
) -> Tracker:
    """The tracker with some options; its package is imported here."""
    if isinstance(options, TensorBoardConfig):
        from ofbnas.study.trackers.tensorboard import TensorBoard

        return TensorBoard(options, folder)
    if isinstance(options, MlflowConfig):
        from ofbnas.study.trackers.mlflow import Mlflow

        return Mlflow(options, config.name, identity)
    if isinstance(options, WandbConfig):
        from ofbnas.study.trackers.wandb import Wandb

        return Wandb(options, config.name, folder, identity)
    from ofbnas.study.trackers.optuna_dashboard import OptunaDashboard

    return OptunaDashboard(study, folder)

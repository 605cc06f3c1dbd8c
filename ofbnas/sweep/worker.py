"""Ray's side of a study: what runs in a worker, and what the driver hears of it."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
import yaml

from ofbnas import table
from ofbnas.config import StudyConfig
from ofbnas.parent import data_of
from ofbnas.sweep.ray_quietly import tune
from ofbnas.trial import run_trial, write_failure

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


def trainable(config: dict[str, Any], study: str, folder: str, parent: Mapping[str, torch.Tensor]) -> None:
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

    def on_rung(epoch: int, told: Mapping[str, float]) -> None:
        tune.report({"trial": config["trial"], "phase": "rung", "epoch": epoch, **told})

    place = Path(folder)
    with log_to(place / "study.log"):
        try:
            data = data_of(values).to(device)
            run_trial(values, config["params"], config["trial"], place, data, parent, report, on_rung)
        except Exception as error:  # whatever a trial dies of is its row's reason, and the others go on
            log.exception("trial %d failed", config["trial"])
            write_failure(values, config["params"], config["trial"], place, _reason(error))
    tune.report({"trial": config["trial"], "phase": "ended", "epoch": 0, "epochs": 0})


class Tell(tune.Callback):  # type: ignore[misc]  # ray has no types
    """Passes Tune's events on to the view, and writes the rows of trials whose process was lost."""

    def __init__(self, config: StudyConfig, folder: Path, view: View) -> None:
        self.config, self.folder, self.view = config, folder, view

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
        """A trial is over."""
        self.view.ended(trial.config["trial"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process was lost more often than allowed."""
        number = trial.config["trial"]
        if table.read_row(self.folder, number) is None:
            lines = (trial.get_error() or "its process was lost").strip().splitlines()
            write_failure(self.config, trial.config["params"], number, self.folder, lines[-1][:500])
        self.view.ended(number)


@contextmanager
def log_to(file: Path) -> Iterator[None]:
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

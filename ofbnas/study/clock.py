"""The time of a trial, over all processes that have worked on it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from ofbnas.training.checkpoint import load_checkpoint, save_checkpoint
from ofbnas.training.events import Callback, Phase


class Clock(Callback):
    """The time that a trial has taken, earlier processes included up to the last epoch of each."""

    settings = "the time of a trial"

    def __init__(self, file: Path) -> None:
        self.file = file
        self.started = time.monotonic()
        saved = load_checkpoint(file, self.settings)
        self.before: float = 0.0 if saved is None else saved["seconds"]

    def seconds(self) -> float:
        """Time until now."""
        return self.before + time.monotonic() - self.started

    def on_rung(self, epoch: int, metrics: dict[str, float]) -> None:
        """Add the time to the metrics: a trial that is pruned here has it in its row."""
        metrics["seconds"] = self.seconds()

    def on_epoch(
        self,
        phase: Phase,
        epoch: int,
        epochs: int,
        losses: Mapping[str, float],
    ) -> None:
        """Save the time for a process that resumes the trial."""
        save_checkpoint(self.file, {"seconds": self.seconds()}, self.settings)

"""The history of a trial, written while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ofbnas.parallel import shard
from ofbnas.table.history import write_history
from ofbnas.training.events import Callback, Phase


class Recorder(Callback):
    """Writes a trial's history into a folder, anew at each epoch, in the first process.

    It has no state of its own: where a phase is resumed, it is told again what the checkpoint has.
    """

    def __init__(self, folder: Path, trial: int, study: str) -> None:
        """Set up for one trial.

        Args:
            folder: Of the table.
            trial: Its number.
            study: The name of the study.
        """
        self.folder = folder
        self.trial = trial
        self.study = study
        self.records: dict[Phase, list[Mapping[str, Any]]] = {}

    def on_fit_begin(self, phase: Phase, epoch: int, epochs: int) -> None:
        """Forget what is known of a phase: its records follow."""
        self.records[phase] = []

    def on_record(self, record: Mapping[str, Any]) -> None:
        """Add a record."""
        self.records[record["phase"]].append(record)

    def on_rung(self, epoch: int, metrics: dict[str, float]) -> None:
        """Write, as the trial may be stopped here."""
        self._write()

    def on_epoch(
        self,
        phase: Phase,
        epoch: int,
        epochs: int,
        losses: Mapping[str, float],
    ) -> None:
        """Write."""
        self._write()

    def on_end(self, phase: Phase) -> None:
        """Write, as a phase that was resumed after its last epoch has no further one."""
        self._write()

    def _write(self) -> None:
        """Write all records, those of the search first."""
        if shard().rank == 0:
            records = [record for phase in self.records.values() for record in phase]
            write_history(self.folder, self.trial, records, study=self.study)

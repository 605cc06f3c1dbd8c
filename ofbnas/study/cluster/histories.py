"""The histories of running trials, as the driver hears of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ofbnas.table.history import write_history


class Histories:
    """What running trials have reported of their histories.

    A trial writes its own history where it sees the study's folder. Where nodes share no folder,
    only the driver writes there, so it writes them.
    """

    def __init__(self, folder: Path, study: str, *, write: bool) -> None:
        """Set up for one run of a study.

        Args:
            folder: The study's.
            study: Its name.
            write: Whether to write the histories into the folder.
        """
        self.folder = folder
        self.study = study
        self.write = write
        self.records: dict[int, list[Mapping[str, Any]]] = {}

    def begin(self, trial: int) -> None:
        """An attempt at a trial begins: it will report again what its checkpoint has."""
        self.records[trial] = []

    def add(self, trial: int, records: Sequence[Mapping[str, Any]]) -> None:
        """A trial has reported further records."""
        self.records[trial].extend(records)
        if self.write and records:
            write_history(self.folder, trial, self.records[trial], study=self.study)

    def end(self, trial: int) -> None:
        """A trial is over."""
        self.records.pop(trial, None)

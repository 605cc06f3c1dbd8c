"""What a tracker is told of a study."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ofbnas.table.columns import COSTS, QUALITIES, Row

OF_EPOCHS = ("task", "val_top1", "val_loss", "lr", "reconstruction", "expected_cost")
OF_ROWS = (*QUALITIES, *COSTS, "parent_top1", "parent_val_top1", "parent_gmacs", "parent_params")


class Tracker(ABC):
    """Receives what happens in a study; its methods are called in a thread of their own, in order.

    An exception that one raises ends the tracker, and not the study.
    """

    @abstractmethod
    def begin(self, trial: int, params: Mapping[str, Any]) -> None:
        """An attempt at a trial begins; what was said of an earlier attempt is said again.

        Args:
            trial: Its number.
            params: Swept fields by dotted name, with its values.
        """

    @abstractmethod
    def epoch(self, trial: int, phase: str, epoch: int, values: Mapping[str, float]) -> None:
        """A trial has finished an epoch of "search" or "finetune", counted from 1 in each."""

    @abstractmethod
    def end(self, row: Row) -> None:
        """A trial has its row."""

    @abstractmethod
    def picture(self, name: str, file: Path) -> None:
        """There is a picture (.png) of the study; it replaces that of the same name."""

    @abstractmethod
    def close(self) -> None:
        """Nothing follows."""


def values_of(record: Mapping[str, Any]) -> dict[str, float]:
    """What a record of the history has measured of an epoch."""
    return {name: record[name] for name in OF_EPOCHS if record.get(name) is not None}


def metrics_of(row: Row) -> dict[str, float]:
    """What a row has measured, by column of the table."""
    values = {name: getattr(row, name) for name in OF_ROWS}
    return {name: float(value) for name, value in values.items() if value is not None}


def description_of(row: Row) -> str:
    """What a row says in words, as Markdown: how the trial ended, and its architecture."""
    lines = [f"Trial {row.trial} of {row.study}: {row.status}."]
    if row.reason:
        lines.append(row.reason)
    if row.arch_id:
        lines.append(f"Architecture {row.arch_id} of {row.model}.")
    if row.architecture:
        lines.append(f"```json\n{json.dumps(row.architecture)}\n```")
    return "\n\n".join(lines)

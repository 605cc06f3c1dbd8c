"""A trial's history in a line of text: how accuracy has gone, and where it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ofbnas.cli.output import cell

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 24  # characters of a curve
BETWEEN = "│"  # search and fine-tuning


def facts(record: Mapping[str, Any]) -> str:
    """The loss of an epoch and, if it was measured, its accuracy.

    >>> facts({"task": 0.53124, "val_top1": 93.1})
    'loss 0.5312, val_top1 93.10'
    """
    words = []
    for name, column in (("loss", "task"), ("val_top1", "val_top1")):
        if record.get(column) is not None:
            words.append(f"{name} {cell(column, record[column])}")
    return ", ".join(words)


def accuracy_curve(records: Sequence[Mapping[str, Any]], width: int = WIDTH) -> str:
    """The accuracies of a trial's epochs as bars; a line is between search and fine-tuning.

    Args:
        records: Of its history.
        width: Highest number of characters; of more epochs, the last of each stretch is shown.

    >>> steps = [("search", 40.0), ("search", 60.0), ("finetune", 75.0), ("finetune", 80.0)]
    >>> accuracy_curve([{"phase": phase, "val_top1": top1} for phase, top1 in steps])
    '▁▄│▇█'
    """
    measured = [record for record in records if record.get("val_top1") is not None]
    kept = _thinned(measured, width - len(BETWEEN))
    if not kept:
        return ""
    low = min(record["val_top1"] for record in kept)
    high = max(record["val_top1"] for record in kept)
    bars = []
    phase = kept[0]["phase"]
    for record in kept:
        if record["phase"] != phase:
            phase = record["phase"]
            bars.append(BETWEEN)
        share = (record["val_top1"] - low) / (high - low) if high > low else 1.0
        bars.append(BARS[int(share * (len(BARS) - 1))])
    return "".join(bars)


def _thinned(records: list[Mapping[str, Any]], most: int) -> list[Mapping[str, Any]]:
    """At most so many of the records, evenly spaced, the last one included."""
    count = min(most, len(records))
    return [records[(index + 1) * len(records) // count - 1] for index in range(count)]

"""Histories of a table's trials, as columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ofbnas.table.history import history_arrow

LOSSES = (
    "task",
    "reconstruction",
    "one_hot",
    "importance_norm",
    "expected_cost",
)
OF_DECISIONS = (*LOSSES, "importance_weight", "mask_ratio", "multiplier")
OF_EPOCHS = ("val_top1", "val_loss", *LOSSES, "lr")
DIGITS = 5  # of a number on the page
MAX_EPOCHS = 400  # of a trial on the page, which is about as wide in pixels


class Histories(NamedTuple):
    """What the histories of a table say; trials without any are left out.

    Attributes:
        decisions: Trial to the decisions of its search, as columns: "step", "epoch" and each of
            `OF_DECISIONS` are lists with a value for each decision. "axes" has the name of each
            axis, "options" for each axis the number of options left at each decision, and "first"
            for each axis its size, (groups, channels), before the first decision.
        epochs: Trial to the epochs of its search and its fine-tuning, as columns: "phase", "epoch"
            and those of `OF_EPOCHS` that have a value, with a value for each epoch.
    """

    decisions: dict[int, dict[str, Any]]
    epochs: dict[int, dict[str, Any]]


def histories(source: Path) -> Histories:
    """The histories of a table's trials.

    Args:
        source: The table.

    Raises:
        InputError: A file of the history cannot be read.
    """
    found = Histories({}, {})
    table = history_arrow(source)
    records = [] if table is None else table.to_pylist()
    of_trials: dict[int, list[dict[str, Any]]] = {}
    for record in records:
        of_trials.setdefault(record["trial"], []).append(record)
    for trial, of_trial in of_trials.items():
        decisions = [record for record in of_trial if record["kind"] == "decision"]
        epochs = [record for record in of_trial if record["kind"] == "epoch"]
        if decisions:
            found.decisions[trial] = _decision_columns(decisions)
        if epochs:
            found.epochs[trial] = _epoch_columns(epochs)
    return found


def _epoch_columns(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Records of epochs as columns; of very many epochs, evenly spaced ones and the last."""
    count = min(MAX_EPOCHS, len(records))
    kept = [records[(index + 1) * len(records) // count - 1] for index in range(count)]
    columns: dict[str, Any] = {
        name: [record[name] for record in kept] for name in ("phase", "epoch")
    }
    for name in OF_EPOCHS:
        values = [_short(record.get(name)) for record in kept]
        if any(value is not None for value in values):
            columns[name] = values
    return columns


def _decision_columns(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Records of decisions as columns."""
    axes = records[0]["axes"] or []
    names = [axis["axis"] for axis in axes]

    # A record may lack an axis or list it elsewhere, so options are found by its name.
    counts = []
    for record in records:
        counts.append({axis["axis"]: axis["options"] for axis in record["axes"] or []})
    options = []
    for name in names:
        options.append([count.get(name) for count in counts])

    curves = {}
    for name in OF_DECISIONS:
        curves[name] = [_short(record.get(name)) for record in records]
    return {
        "step": [record["step"] for record in records],
        "epoch": [record["epoch"] for record in records],
        **curves,
        "axes": names,
        "options": options,
        "first": [[axis["groups"], axis["channels"]] for axis in axes],
    }


def _short(value: float | None) -> float | None:
    """A number in as many digits as a chart can show; null if JSON cannot express it."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{DIGITS}g}")

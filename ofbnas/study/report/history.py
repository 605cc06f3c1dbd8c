"""Histories of a study's trials as columns, and the parent's sizes, from before any decision."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ofbnas.models.architecture import block_names_of, encode_sizes, kinds_by_name
from ofbnas.table import parquet
from ofbnas.table.layout import HISTORY_FOLDER
from ofbnas.table.schema import HISTORY_SCHEMA

CURVES = (
    "task",
    "reconstruction",
    "one_hot",
    "importance_norm",
    "expected_cost",
    "importance_weight",
    "mask_ratio",
    "multiplier",
)
DIGITS = 5  # of a number on the page


def histories(folder: Path) -> dict[int, dict[str, Any]]:
    """The history of each trial that has one.

    Args:
        folder: The study's.

    Returns:
        Trial to its decisions, as columns: "step", "epoch" and each curve are lists with a value
        for each decision. "axes" has the name of each axis, "options" for each axis the number of
        options left at each decision, and "first" for each axis its size, (groups, channels),
        before the first decision.

    Raises:
        InputError: A file of the history cannot be read.
    """
    result = {}
    for file in sorted((folder / HISTORY_FOLDER).glob("trial-*.parquet")):
        records = _records(file)
        if records:
            trial = records[0]["trial"]
            result[trial] = _columns(records)
    return result


def parent_sizes(decisions: Mapping[str, Any]) -> dict[str, Any]:
    """The parent's sizes as the table's `architecture` column would have them, and their names.

    Args:
        decisions: A trial's, as `histories` gives them.
    """
    sizes = {}
    for name, (groups, channels) in zip(decisions["axes"], decisions["first"], strict=True):
        sizes[name] = (groups, channels)
    kinds = kinds_by_name(sizes)
    return {
        **encode_sizes(sizes, kinds),
        "embed_names": [name for name, kind in kinds.items() if kind == "embed"],
        "block_names": block_names_of(kinds),
    }


def _records(file: Path) -> list[dict[str, Any]]:
    """A file's records, one for each decision."""
    required = [field.name for field in HISTORY_SCHEMA if not field.nullable]
    table = parquet.read(file, required=[*required, "axes"])
    records: list[dict[str, Any]] = table.to_pylist()
    return records


def _columns(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Records as columns."""
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
    for name in CURVES:
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

"""Histories of a study's trials as columns, and the parent's sizes, which are those before the first beat."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ofbnas import parquet
from ofbnas.schema import HISTORY_SCHEMA
from ofbnas.table import HISTORY_FOLDER, nested

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
KINDS = {"embed": "embed", "attn": "attn"}  # the last part of an axis' name to its kind; others are MLPs


def histories(folder: Path) -> dict[int, dict[str, Any]]:
    """The history of each trial that has one.

    Args:
        folder: The study's.

    Returns:
        Trial to its beats: "step", "epoch" and each curve as lists with a value per beat, "axes" with a name per axis,
        "options" with a list per axis of the options left on each beat, and "first" with each axis' size, (groups,
        channels), before anything was decided.

    Raises:
        InputError: A file of the history cannot be read.
    """
    files = sorted((folder / HISTORY_FOLDER).glob("trial-*.parquet"))
    read = [_records(file) for file in files]
    return {records[0]["trial"]: _beats(records) for records in read if records}


def parent_sizes(beats: Mapping[str, Any]) -> dict[str, Any]:
    """The parent's sizes, as the table's `architecture` column has an architecture's, and what these are called."""
    sizes = {name: (groups, channels) for name, (groups, channels) in zip(beats["axes"], beats["first"], strict=True)}
    kinds = {name: KINDS.get(name.rpartition(".")[2], "mlp") for name in sizes}
    streams = [name for name, kind in kinds.items() if kind == "embed"]
    blocks = dict.fromkeys(name.rpartition(".")[0] for name in sizes if name not in streams)
    return {**nested(sizes, kinds), "embed_names": streams, "block_names": list(blocks)}


def _records(file: Path) -> list[dict[str, Any]]:
    required = [field.name for field in HISTORY_SCHEMA if not field.nullable]
    records: list[dict[str, Any]] = parquet.read(file, required=[*required, "axes"]).to_pylist()
    return records


def _beats(records: list[dict[str, Any]]) -> dict[str, Any]:
    first = records[0]["axes"] or []
    left = [{axis["axis"]: axis["options"] for axis in record["axes"] or []} for record in records]
    return {
        "step": [record["step"] for record in records],
        "epoch": [record["epoch"] for record in records],
        **{name: [_short(record.get(name)) for record in records] for name in CURVES},
        "axes": [axis["axis"] for axis in first],
        "options": [[options.get(axis["axis"]) for options in left] for axis in first],
        "first": [[axis["groups"], axis["channels"]] for axis in first],
    }


def _short(value: float | None) -> float | None:
    """A number in as many digits as a chart can show; JSON has none that is not finite."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.{DIGITS}g}")

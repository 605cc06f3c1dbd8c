"""The Arrow schemas of the architecture table and of the history."""

from __future__ import annotations

import pyarrow as pa

from ofbnas.table.column import Column, Kind
from ofbnas.table.columns import COLUMNS

VERSION = 1

_BLOCK = pa.struct(
    [
        ("heads", pa.int32()),
        ("head_size", pa.int32()),
        ("mlp", pa.int32()),
    ]
)
_ARCHITECTURE = pa.struct(
    [
        ("embed", pa.list_(pa.int32())),
        ("blocks", pa.list_(_BLOCK)),
    ]
)
TYPES = {
    Kind.TEXT: pa.string(),
    Kind.INT32: pa.int32(),
    Kind.INT64: pa.int64(),
    Kind.REAL: pa.float64(),
    Kind.TIME: pa.timestamp("us", tz="UTC"),
    Kind.ARCHITECTURE: _ARCHITECTURE,
}


def _field(column: Column) -> pa.Field:
    """An Arrow field; its metadata has the column's meaning and unit, for readers of the file."""
    metadata = {"meaning": column.meaning, "unit": column.unit}
    kind = TYPES[column.kind]
    return pa.field(
        column.name,
        kind,
        nullable=not column.required,
        metadata=metadata,
    )


SCHEMA = pa.schema([_field(column) for column in COLUMNS.values()])

_AXIS = pa.struct(
    [
        ("axis", pa.string()),
        ("groups", pa.int32()),
        ("channels", pa.int32()),
        ("options", pa.int32()),
        ("expected", pa.float64()),
    ]
)
_INTERVAL = "mean since the last row"  # the history has a row for each decision interval


def _history(name: str, kind: pa.DataType, meaning: str, *, required: bool = False) -> pa.Field:
    """A column of the history; its numbers have no unit."""
    metadata = {"meaning": meaning, "unit": ""}
    return pa.field(name, kind, nullable=not required, metadata=metadata)


HISTORY_SCHEMA = pa.schema(
    [
        _history("study", pa.string(), "Name of the study.", required=True),
        _history("trial", pa.int64(), "Number of the trial.", required=True),
        _history(
            "epoch",
            pa.int32(),
            "Epoch of the search, from 1; without training, the step.",
            required=True,
        ),
        _history(
            "step",
            pa.int64(),
            "Optimizer steps done; without training, steps towards the budget.",
            required=True,
        ),
        _history(
            "task",
            pa.float64(),
            f"Loss of the task with the teacher's share, {_INTERVAL}; without training, the "
            "divergence of outputs from the parent's.",
        ),
        _history("reconstruction", pa.float64(), f"Loss of masked image modelling, {_INTERVAL}."),
        _history("one_hot", pa.float64(), f"Adaptive one-hot loss, {_INTERVAL}."),
        _history("importance_norm", pa.float64(), f"Weighted importance norm, {_INTERVAL}."),
        _history(
            "expected_cost", pa.float64(), f"Expected cost as a share of the parent's, {_INTERVAL}."
        ),
        _history(
            "importance_weight", pa.float64(), "Lambda: the weight of importance in the bi-mask."
        ),
        _history("mask_ratio", pa.float64(), "Share of patches that are hidden."),
        _history("multiplier", pa.float64(), "The budget's Lagrange multiplier."),
        _history(
            "axes", pa.list_(_AXIS), "Each axis' present size, options left, and expected width."
        ),
    ]
)

"""The Arrow schemas of the architecture table and of the history."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from ofbnas.table.column import Column, Kind
from ofbnas.table.columns import COLUMNS
from ofbnas.table.parquet import VERSION_KEY

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


def versioned(fields: Iterable[pa.Field], version: int = VERSION) -> pa.Schema:
    """A schema that says which version of this program's schema it follows."""
    return pa.schema(list(fields), metadata={VERSION_KEY: str(version)})


_AXIS = pa.struct(
    [
        ("axis", pa.string()),
        ("groups", pa.int32()),
        ("channels", pa.int32()),
        ("options", pa.int32()),
        ("expected", pa.float64()),
    ]
)
# The history has a row for each decision and one for each epoch.
_INTERVAL = "mean since the last row of its kind"


def _history(
    name: str, kind: pa.DataType, meaning: str, *, required: bool = False, unit: str = ""
) -> pa.Field:
    """A column of the history; most of its numbers have no unit."""
    metadata = {"meaning": meaning, "unit": unit}
    return pa.field(name, kind, nullable=not required, metadata=metadata)


HISTORY_SCHEMA = pa.schema(
    [
        _history("study", pa.string(), "Name of the study.", required=True),
        _history("trial", pa.int64(), "Number of the trial.", required=True),
        _history(
            "kind",
            pa.string(),
            "decision: a step of the search at which options may be removed. epoch: an epoch of "
            "training. Null in older files, which have decisions only.",
        ),
        _history(
            "phase",
            pa.string(),
            "search or finetune; null in older files, which have searches only.",
        ),
        _history(
            "epoch",
            pa.int32(),
            "Epoch of the phase, from 1; without training, the step.",
            required=True,
        ),
        _history(
            "step",
            pa.int64(),
            "Optimizer steps of the phase; without training, steps towards the budget.",
            required=True,
        ),
        _history(
            "task",
            pa.float64(),
            f"Loss of the task with the teacher's share, {_INTERVAL}; without training, the "
            "divergence of outputs from the parent's.",
        ),
        _history(
            "val_top1",
            pa.float64(),
            "Of an epoch: accuracy on the validation images, of the network as it is then, with "
            "its masks fused and with averaged weights if there are any.",
            unit="%",
        ),
        _history(
            "val_loss",
            pa.float64(),
            "Of an epoch: mean cross-entropy on the validation images, of the same network.",
            unit="nats",
        ),
        _history("lr", pa.float64(), "Of an epoch: learning rate of the weights at its last step."),
        _history("reconstruction", pa.float64(), f"Loss of masked image modelling, {_INTERVAL}."),
        _history("one_hot", pa.float64(), f"Adaptive one-hot loss, {_INTERVAL}."),
        _history("importance_norm", pa.float64(), f"Weighted importance norm, {_INTERVAL}."),
        _history(
            "expected_cost", pa.float64(), f"Expected cost as a share of the parent's, {_INTERVAL}."
        ),
        _history(
            "importance_weight",
            pa.float64(),
            "Of a decision: lambda, the weight of importance in the bi-mask.",
        ),
        _history("mask_ratio", pa.float64(), "Of a decision: share of patches that are hidden."),
        _history("multiplier", pa.float64(), "Of a decision: the budget's Lagrange multiplier."),
        _history(
            "axes",
            pa.list_(_AXIS),
            "Of a decision: each axis' size, options left, and expected width before it.",
        ),
    ]
)

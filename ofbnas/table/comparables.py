"""Costs and qualities: what is declared of the columns that fronts and objectives can be about."""

from __future__ import annotations

from ofbnas.table.column import PERCENT, PREFIXES, Comparable, Units

GMACS = Comparable(
    role="cost",
    label="multiply-accumulates per image",
    short="MACs",
    units=Units(1e9, PREFIXES, "MACs"),
    at_rungs=True,
)
PARAMS = Comparable(
    role="cost",
    label="parameters",
    short="parameters",
    units=Units(1, PREFIXES),
    at_rungs=True,
)
TOP1 = Comparable(
    role="quality",
    label="top-1 accuracy",
    short="top-1",
    units=PERCENT,
)
TOP5 = Comparable(
    role="quality",
    label="top-5 accuracy",
    short="top-5",
    units=PERCENT,
)
VAL_TOP1 = Comparable(
    role="quality",
    label="top-1 accuracy on validation images",
    short="validation top-1",
    units=PERCENT,
    at_rungs=True,
)
LATENCY_MS = Comparable(
    role="cost",
    label="latency",
    short="latency",
    units=Units(1, ((1, "ms"),)),
    section="latency",
    example="{batch_size: 1}",
)
SECONDS = Comparable(
    role="cost",
    label="time of search and fine-tuning",
    short="time",
    units=Units(1, ((1, "s"), (60, "min"), (3600, "h"))),
)
GPU_HOURS = Comparable(
    role="cost",
    label="GPU hours of search and fine-tuning",
    short="GPU hours",
    units=Units(1, ((1, "h"),)),
)
KNN_TOP1 = Comparable(
    role="quality",
    label="top-1 accuracy of nearest neighbours",
    short="k-NN top-1",
    units=PERCENT,
)
CKA = Comparable(
    role="quality",
    label="linear CKA of features with the parent's",
    short="CKA",
    units=Units(1, ((1, ""),)),
)

"""The columns of the architecture table, each declared once, as the fields of `Row`.

Everything that has to know a column follows from its declaration: the Parquet schema, what fronts,
plots and objectives accept, ranges that `table validate` checks, the card, the report's page and
its JavaScript. A new cost is one field here, and one line where it is measured. Only the standard
library is imported, so that settings can import this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Literal

from ofbnas.table.column import (
    CKA,
    GPU_HOURS,
    KNN_TOP1,
    LATENCY,
    PERCENT,
    PREFIXES,
    SECONDS,
    Column,
    Comparable,
    Kind,
    Units,
)  # fmt: skip

SWEPT = "hp."  # prefix of the columns that hold swept hyper-parameters


def _column(
    kind: Kind, meaning: str, unit: str = "", *, required: bool = False, **more: Any
) -> Any:
    """A field of `Row` that is a column; the field's name is the column's."""
    declared = {"kind": kind, "meaning": meaning, "unit": unit, "required": required, **more}
    if required:
        return field(metadata=declared)
    return field(default=None, metadata=declared)


# What several declarations share.
_NOT_NEGATIVE: dict[str, Any] = {"low": 0}
_POSITIVE: dict[str, Any] = {"low": 0, "low_excluded": True}
_PERCENT: dict[str, Any] = {"low": 0, "high": 100}
_SHARE: dict[str, Any] = {"low": 0, "high": 1}
_PAGE: dict[str, Any] = {"in_report": True}
_CARD: dict[str, Any] = {"in_card": True}
_BOTH: dict[str, Any] = {"in_report": True, "in_card": True}
_NETWORK: dict[str, Any] = {"of_network": True}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A trial's row. Values that are unknown or do not apply are None.

    Attributes:
        swept: The swept hyper-parameters by dotted name; in the table their columns begin with
            "hp.".
    """

    arch_id: str | None = _column(
        Kind.TEXT,
        "Hash of the parent and all sizes: the same architecture has the same id everywhere.",
        **_NETWORK,
        **_BOTH,
    )
    study: str = _column(Kind.TEXT, "Name of the study.", required=True, **_CARD)
    trial: int = _column(
        Kind.INT64, "Number of the trial in its study.", required=True, **_NOT_NEGATIVE, **_BOTH
    )
    status: str = _column(
        Kind.TEXT, "complete, failed, or pruned: stopped early.", required=True, **_BOTH
    )
    reason: str | None = _column(Kind.TEXT, "Why the trial failed or was stopped.", **_BOTH)
    model: str = _column(Kind.TEXT, "timm's name of the parent.", required=True, **_CARD)
    model_kwargs: str = _column(
        Kind.TEXT,
        "JSON: arguments of timm.create_model for the parent.",
        required=True,
        json=True,
        **_CARD,
    )
    num_classes: int | None = _column(Kind.INT32, "Classes of the data set.", **_POSITIVE)
    image_size: int | None = _column(Kind.INT32, "Height of the images.", "pixels", **_POSITIVE)
    architecture: Mapping[str, Any] | None = _column(
        Kind.ARCHITECTURE,
        "Sizes: the embedding, of each stage where there are several, and heads, head size and "
        "hidden units of each block; 0 where a block has lost them, null where it has none of its "
        "own.",
        **_NETWORK,
        **_BOTH,
    )
    gmacs: float | None = _column(
        Kind.REAL,
        "Multiply-accumulates for one image.",
        "10^9",
        comparable=Comparable(
            role="cost",
            label="multiply-accumulates per image",
            short="MACs",
            axis="GMACs per image",
            units=Units(1e9, PREFIXES, "MACs"),
            at_rungs=True,
        ),
        **_POSITIVE,
        **_NETWORK,
        **_BOTH,
    )
    params: int | None = _column(
        Kind.INT64,
        "Parameters.",
        comparable=Comparable(
            role="cost",
            label="parameters",
            short="parameters",
            axis="parameters",
            units=Units(1, PREFIXES),
            at_rungs=True,
        ),
        **_POSITIVE,
        **_NETWORK,
        **_BOTH,
    )
    parent_gmacs: float | None = _column(
        Kind.REAL, "The same of the parent.", "10^9", **_POSITIVE, **_CARD
    )
    parent_params: int | None = _column(Kind.INT64, "The same of the parent.", **_POSITIVE, **_CARD)
    budget: str | None = _column(Kind.TEXT, "JSON: the budget that was asked for.", json=True)
    budget_note: str | None = _column(
        Kind.TEXT, "Why the cost is further below the budget than its tolerance.", **_PAGE
    )
    forced: int | None = _column(
        Kind.INT32,
        "Axes that were still open when all had to be decided.",
        **_NOT_NEGATIVE,
        **_PAGE,
    )
    top1: float | None = _column(
        Kind.REAL,
        "Accuracy on the test images, of the finished network.",
        "%",
        comparable=Comparable(
            role="quality",
            label="top-1 accuracy",
            short="top-1",
            axis="top-1 accuracy, %",
            units=PERCENT,
        ),
        **_PERCENT,
        **_NETWORK,
        **_BOTH,
    )
    top5: float | None = _column(
        Kind.REAL,
        "Share of test images whose class is among the five most probable.",
        "%",
        comparable=Comparable(
            role="quality",
            label="top-5 accuracy",
            short="top-5",
            axis="top-5 accuracy, %",
            units=PERCENT,
        ),
        **_PERCENT,
        **_NETWORK,
        **_BOTH,
    )
    val_top1: float | None = _column(
        Kind.REAL,
        "Accuracy on the validation images, by which studies decide; of a pruned trial, its "
        "supernet's when it was stopped.",
        "%",
        comparable=Comparable(
            role="quality",
            label="top-1 accuracy on validation images",
            short="validation top-1",
            axis="top-1 accuracy on validation images, %",
            units=PERCENT,
            at_rungs=True,
        ),
        **_PERCENT,
        **_BOTH,
    )
    top1_before_finetune: float | None = _column(
        Kind.REAL,
        "Accuracy on the test images before fine-tuning.",
        "%",
        **_PERCENT,
        **_NETWORK,
        **_PAGE,
    )
    parent_top1: float | None = _column(
        Kind.REAL, "The parent's accuracy on the test images.", "%", **_PERCENT, **_CARD
    )
    knn_top1: float | None = _column(
        Kind.REAL,
        "Of a model without a classifier: accuracy on the test images of their 20 nearest "
        "neighbours by features among the validation images.",
        "%",
        comparable=KNN_TOP1,
        **_PERCENT,
        **_NETWORK,
        **_BOTH,
    )
    cka: float | None = _column(
        Kind.REAL,
        "Of such a model: linear CKA of its features and its parent's on the validation images.",
        comparable=CKA,
        **_SHARE,
        **_NETWORK,
        **_BOTH,
    )
    parent_knn_top1: float | None = _column(
        Kind.REAL, "knn_top1 of the parent.", "%", **_PERCENT, **_CARD
    )
    latency_ms: float | None = _column(
        Kind.REAL,
        "Median time of one batch, of the finished network.",
        "ms",
        comparable=LATENCY,
        **_NOT_NEGATIVE,
        **_BOTH,
    )
    latency_p90_ms: float | None = _column(
        Kind.REAL, "Nine of ten batches took at most this.", "ms", **_NOT_NEGATIVE, **_PAGE
    )
    parent_latency_ms: float | None = _column(
        Kind.REAL, "The parent's median, measured in turns with it.", "ms", **_NOT_NEGATIVE, **_BOTH
    )
    latency_device: str | None = _column(
        Kind.TEXT, "Device, batch size and precision of the latency; threads on a CPU.", **_BOTH
    )
    search_epochs: int | None = _column(
        Kind.INT32, "Epochs of the search that were done.", **_NOT_NEGATIVE, **_PAGE
    )
    finetune_epochs: int | None = _column(
        Kind.INT32, "Epochs of fine-tuning.", **_NOT_NEGATIVE, **_PAGE
    )
    seconds: float | None = _column(
        Kind.REAL,
        "Time of the trial; of processes that were lost, up to their last epoch.",
        "s",
        comparable=SECONDS,
        **_NOT_NEGATIVE,
        **_PAGE,
    )
    gpu_hours: float | None = _column(
        Kind.REAL,
        "GPUs the trial held times its hours; 0 on a CPU.",
        "h",
        comparable=GPU_HOURS,
        **_NOT_NEGATIVE,
        **_PAGE,
    )
    device: str | None = _column(Kind.TEXT, "Device the trial ran on.", **_BOTH)
    seed: int | None = _column(Kind.INT64, "Seed of the trial.", **_BOTH)
    dataset: str | None = _column(Kind.TEXT, "Name of the data set.", **_CARD)
    data: str | None = _column(
        Kind.TEXT,
        "JSON: what the images are: the study's section data, as it was for this model, without "
        "path and workers, which are a machine's.",
        json=True,
        **_CARD,
    )
    versions: str | None = _column(
        Kind.TEXT, "JSON: versions of ofbnas, Python, torch, timm and others.", json=True, **_CARD
    )
    git_commit: str | None = _column(
        Kind.TEXT, "Commit of the checkout that ran the trial.", **_CARD
    )
    weights: str | None = _column(
        Kind.TEXT, "Path of the weights, relative to the study's folder.", **_NETWORK, **_CARD
    )
    weights_sha256: str | None = _column(
        Kind.TEXT, "SHA-256 of the weights' file, in hexadecimal.", **_CARD
    )
    from_arch_id: str | None = _column(
        Kind.TEXT, "Of `ofbnas finetune`: id of the architecture that it started from.", **_CARD
    )
    from_weights_sha256: str | None = _column(
        Kind.TEXT, "SHA-256 of the weights that it started from, which tells their row.", **_CARD
    )
    finetune: str | None = _column(
        Kind.TEXT, "JSON: its settings, where they differ from the defaults.", json=True, **_CARD
    )
    finished_at: datetime | None = _column(Kind.TIME, "When the trial ended.", **_PAGE)
    swept: Mapping[str, Any] = field(default_factory=dict)

    def values(self) -> dict[str, Any]:
        """Column to value, swept hyper-parameters included."""
        declared = {name: getattr(self, name) for name in COLUMNS}
        swept = {f"{SWEPT}{name}": value for name, value in self.swept.items()}
        return declared | swept

    @staticmethod
    def of(values: Mapping[str, Any]) -> Row:
        """The row that has the given values: the inverse of `values`.

        Raises:
            ValueError: The table has no such column.
        """
        declared = {}
        swept = {}
        for name, value in values.items():
            if name in COLUMNS:
                declared[name] = value
            elif name.startswith(SWEPT):
                swept[name.removeprefix(SWEPT)] = value
            else:
                raise ValueError(
                    f"the table has no column {name}; swept hyper-parameters start with {SWEPT}"
                )
        return Row(**declared, swept=swept)

    @staticmethod
    def known_in(values: Mapping[str, Any]) -> Row:
        """The row of a file, without columns that this version does not know."""
        known = {
            name: value
            for name, value in values.items()
            if name in COLUMNS or name.startswith(SWEPT)
        }
        return Row.of(known)


# Columns by name, in the order of the table. The field `swept` has no metadata: it is not a column.
COLUMNS: dict[str, Column] = {
    declared.name: Column(declared.name, **declared.metadata)
    for declared in fields(Row)
    if declared.metadata
}


def comparable(role: Literal["cost", "quality"] | None = None) -> dict[str, Comparable]:
    """The columns that fronts and objectives can be about: costs, qualities, or by default both."""
    return {
        name: column.comparable
        for name, column in COLUMNS.items()
        if column.comparable is not None and role in (None, column.comparable.role)
    }


COSTS = tuple(comparable("cost"))
QUALITIES = tuple(comparable("quality"))

# What a search can project before it ends: qualities first, as early stopping lists them.
KNOWN_AT_RUNGS = tuple(
    name for name, column in (comparable("quality") | comparable("cost")).items() if column.at_rungs
)


def required_columns() -> list[str]:
    """The columns in which each row has a value."""
    return [column.name for column in COLUMNS.values() if column.required]

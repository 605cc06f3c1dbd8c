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
    BOTH,
    CARD,
    IN_PERCENT,
    NETWORK,
    NOT_NEGATIVE,
    PAGE,
    POSITIVE,
    SHARE,
    Column,
    Comparable,
    Kind,
    column,
)
from ofbnas.table.comparables import (
    CKA,
    GMACS,
    GPU_HOURS,
    KNN_TOP1,
    LATENCY_MS,
    PARAMS,
    SECONDS,
    TOP1,
    TOP5,
    VAL_TOP1,
)

SWEPT = "hp."  # prefix of the columns that hold swept hyper-parameters


@dataclass(frozen=True, kw_only=True)
class Row:
    """A trial's row. Values that are unknown or do not apply are None.

    Attributes:
        swept: The swept hyper-parameters by dotted name; in the table their columns begin with
            "hp.".
    """

    arch_id: str | None = column(
        Kind.TEXT,
        "Hash of the parent and all sizes: the same architecture has the same id everywhere.",
        **NETWORK,
        **BOTH,
    )
    study: str = column(Kind.TEXT, "Name of the study.", required=True, **CARD)
    trial: int = column(
        Kind.INT64, "Number of the trial in its study.", required=True, **NOT_NEGATIVE, **BOTH
    )
    status: str = column(
        Kind.TEXT, "complete, failed, or pruned: stopped early.", required=True, **BOTH
    )
    reason: str | None = column(Kind.TEXT, "Why the trial failed or was stopped.", **BOTH)
    model: str = column(Kind.TEXT, "timm's name of the parent.", required=True, **CARD)
    model_kwargs: str = column(
        Kind.TEXT,
        "JSON: arguments of timm.create_model for the parent.",
        required=True,
        json=True,
        **CARD,
    )
    num_classes: int | None = column(Kind.INT32, "Classes of the data set.", **POSITIVE)
    image_size: int | None = column(Kind.INT32, "Height of the images.", "pixels", **POSITIVE)
    architecture: Mapping[str, Any] | None = column(
        Kind.ARCHITECTURE,
        "Sizes: the embedding, of each stage where there are several, and heads, head size and "
        "hidden units of each block; 0 where a block has lost them, null where it has none of its "
        "own.",
        **NETWORK,
        **BOTH,
    )
    gmacs: float | None = column(
        Kind.REAL,
        "Multiply-accumulates for one image.",
        "10^9",
        comparable=GMACS,
        **POSITIVE,
        **NETWORK,
        **BOTH,
    )
    params: int | None = column(
        Kind.INT64,
        "Parameters.",
        comparable=PARAMS,
        **POSITIVE,
        **NETWORK,
        **BOTH,
    )
    parent_gmacs: float | None = column(
        Kind.REAL, "The same of the parent.", "10^9", **POSITIVE, **CARD
    )
    parent_params: int | None = column(Kind.INT64, "The same of the parent.", **POSITIVE, **CARD)
    budget: str | None = column(Kind.TEXT, "JSON: the budget that was asked for.", json=True)
    budget_note: str | None = column(
        Kind.TEXT, "Why the cost is further below the budget than its tolerance.", **PAGE
    )
    forced: int | None = column(
        Kind.INT32,
        "Axes that were still open when all had to be decided.",
        **NOT_NEGATIVE,
        **PAGE,
    )
    axes: int | None = column(Kind.INT32, "Axes of the search in all.", **POSITIVE, **PAGE)
    top1: float | None = column(
        Kind.REAL,
        "Accuracy on the test images, of the finished network.",
        "%",
        comparable=TOP1,
        **IN_PERCENT,
        **NETWORK,
        **BOTH,
    )
    top5: float | None = column(
        Kind.REAL,
        "Share of test images whose class is among the five most probable.",
        "%",
        comparable=TOP5,
        **IN_PERCENT,
        **NETWORK,
        **BOTH,
    )
    val_top1: float | None = column(
        Kind.REAL,
        "Accuracy on the validation images, by which studies decide; of a pruned trial, its "
        "supernet's when it was stopped.",
        "%",
        comparable=VAL_TOP1,
        **IN_PERCENT,
        **BOTH,
    )
    top1_before_finetune: float | None = column(
        Kind.REAL,
        "Accuracy on the test images before fine-tuning.",
        "%",
        **IN_PERCENT,
        **NETWORK,
        **PAGE,
    )
    parent_top1: float | None = column(
        Kind.REAL, "The parent's accuracy on the test images.", "%", **IN_PERCENT, **CARD
    )
    parent_val_top1: float | None = column(
        Kind.REAL, "Accuracy of the parent on the validation images.", "%", **IN_PERCENT, **CARD
    )
    val_images: int | None = column(Kind.INT32, "Number of validation images.", **POSITIVE, **BOTH)
    warnings: str | None = column(
        Kind.TEXT, "Why the row's figures should be taken with care.", **BOTH
    )
    knn_top1: float | None = column(
        Kind.REAL,
        "Of a model without a classifier: accuracy on the test images of their 20 nearest "
        "neighbours by features among the validation images.",
        "%",
        comparable=KNN_TOP1,
        **IN_PERCENT,
        **NETWORK,
        **BOTH,
    )
    cka: float | None = column(
        Kind.REAL,
        "Of such a model: linear CKA of its features and its parent's on the validation images.",
        comparable=CKA,
        **SHARE,
        **NETWORK,
        **BOTH,
    )
    parent_knn_top1: float | None = column(
        Kind.REAL, "knn_top1 of the parent.", "%", **IN_PERCENT, **CARD
    )
    latency_ms: float | None = column(
        Kind.REAL,
        "Median time of one batch, of the finished network.",
        "ms",
        comparable=LATENCY_MS,
        **NOT_NEGATIVE,
        **BOTH,
    )
    latency_p90_ms: float | None = column(
        Kind.REAL, "Nine of ten batches took at most this.", "ms", **NOT_NEGATIVE, **PAGE
    )
    parent_latency_ms: float | None = column(
        Kind.REAL, "The parent's median, measured in turns with it.", "ms", **NOT_NEGATIVE, **BOTH
    )
    latency_device: str | None = column(
        Kind.TEXT, "Device, batch size and precision of the latency; threads on a CPU.", **BOTH
    )
    search_epochs: int | None = column(
        Kind.INT32, "Epochs of the search that were done.", **NOT_NEGATIVE, **PAGE
    )
    finetune_epochs: int | None = column(
        Kind.INT32, "Epochs of fine-tuning.", **NOT_NEGATIVE, **PAGE
    )
    seconds: float | None = column(
        Kind.REAL,
        "Time of the trial; of processes that were lost, up to their last epoch.",
        "s",
        comparable=SECONDS,
        **NOT_NEGATIVE,
        **PAGE,
    )
    gpu_hours: float | None = column(
        Kind.REAL,
        "GPUs the trial held times its hours; 0 on a CPU.",
        "h",
        comparable=GPU_HOURS,
        **NOT_NEGATIVE,
        **PAGE,
    )
    device: str | None = column(Kind.TEXT, "Device the trial ran on.", **BOTH)
    seed: int | None = column(Kind.INT64, "Seed of the trial.", **BOTH)
    dataset: str | None = column(Kind.TEXT, "Name of the data set.", **CARD)
    data: str | None = column(
        Kind.TEXT,
        "JSON: what the images are: the study's section data, as it was for this model, without "
        "path and workers, which are a machine's.",
        json=True,
        **CARD,
    )
    versions: str | None = column(
        Kind.TEXT, "JSON: versions of ofbnas, Python, torch, timm and others.", json=True, **CARD
    )
    git_commit: str | None = column(Kind.TEXT, "Commit of the checkout that ran the trial.", **CARD)
    weights: str | None = column(
        Kind.TEXT, "Path of the weights, relative to the study's folder.", **NETWORK, **CARD
    )
    weights_sha256: str | None = column(
        Kind.TEXT, "SHA-256 of the weights' file, in hexadecimal.", **CARD
    )
    from_arch_id: str | None = column(
        Kind.TEXT, "Of `ofbnas finetune`: id of the architecture that it started from.", **CARD
    )
    from_weights_sha256: str | None = column(
        Kind.TEXT, "SHA-256 of the weights that it started from, which tells their row.", **CARD
    )
    finetune: str | None = column(
        Kind.TEXT, "JSON: its settings, where they differ from the defaults.", json=True, **CARD
    )
    inherited: str | None = column(
        Kind.TEXT,
        "JSON, of population-based training: for each epoch after which the trial went on from "
        "another one's checkpoint, or with other values, that trial's number and the values until "
        "then.",
        json=True,
        **CARD,
    )
    finished_at: datetime | None = column(Kind.TIME, "When the trial ended.", **PAGE)
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

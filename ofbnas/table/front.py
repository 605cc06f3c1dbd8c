"""Pareto fronts of architecture tables and their hypervolume."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import moocore
import numpy as np
import pandas as pd

from ofbnas.errors import InputError
from ofbnas.table.columns import COSTS, QUALITIES

MAXIMISE = [False, True]  # of the axes (x, y), as moocore takes them


@dataclass(frozen=True)
class Hypervolume:
    """The area a front dominates.

    Attributes:
        value: In units of x times units of y.
        x: Cost of the reference point.
        y: Quality of the reference point.
        share: Of the area between the reference point and no cost at 100 %; 0 where that has no
            area.
    """

    value: float
    x: float
    y: float
    share: float


def default_quality(tables: Collection[pd.DataFrame]) -> str:
    """The quality that fronts of tables are selected by, unless another is asked for.

    It is accuracy on validation images, since what is selected by test images looks better than it
    is; but test accuracy where a row has that alone, as published results do; and that of nearest
    neighbours for models without a classifier.
    """
    for y in ("val_top1", "top1", "knn_top1"):
        if all(_has(table, y) for table in tables):
            return y
    return "top1"


def _has(table: pd.DataFrame, y: str) -> bool:
    """Whether rows of a table have a quality, on validation images wherever on test images."""
    if y not in table.columns or table[y].isna().all():
        return False
    if y != "val_top1" or "top1" not in table.columns:
        return True
    return not (table[y].isna() & table["top1"].notna()).any()


def front(
    table: pd.DataFrame,
    *,
    x: str = "gmacs",
    y: str | None = None,
) -> pd.DataFrame:
    """The rows that no other row dominates: none has less x and no less y, or no more x and more y.

    Of rows with equal x and y the first is kept. Rows without finite x and y are left out, and so
    are those of trials that failed or were pruned.

    Args:
        table: As `read_table` returns it.
        x: Cost to minimize.
        y: Quality to maximize; by default that of `default_quality`.

    Returns:
        The front's rows by ascending x; their order in the table does not matter.

    Raises:
        InputError: The table has no such column.
    """
    y = y or default_quality([table])
    for column, known in ((x, COSTS), (y, QUALITIES)):
        if column not in known or column not in table.columns:
            raise InputError(
                f"column {column} cannot be compared here; expected one of {', '.join(known)}"
            )

    rows = comparable_rows(table, x, y)
    if rows.empty:
        return rows
    points = rows[[x, y]].to_numpy(dtype=np.float64)
    is_best = moocore.is_nondominated(points, maximise=MAXIMISE, keep_weakly=False)
    best: pd.DataFrame = rows[is_best]
    return best.sort_values(x, kind="stable", ignore_index=True)


def comparable_rows(table: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """The rows of complete trials that have finite x and y."""
    rows = table.dropna(subset=[x, y])
    points = rows[[x, y]].to_numpy(dtype=np.float64)
    is_finite = np.isfinite(points).all(axis=1)
    rows = rows[is_finite]
    if "status" in rows.columns:  # a table from elsewhere may have no such column
        rows = rows[rows["status"] == "complete"]
    result: pd.DataFrame = rows
    return result


def hypervolume(
    rows: pd.DataFrame,
    *,
    x: str = "gmacs",
    y: str | None = None,
    ref: tuple[float, float],
) -> Hypervolume:
    """The area that rows dominate, up to a reference point.

    Args:
        rows: Rows of a table; those that are dominated or beyond the reference point add nothing.
        x: Cost to minimize.
        y: Quality to maximize, in percent; by default that of `default_quality`.
        ref: The reference point, (x, y), for example the parent's cost and 0 %.
    """
    y = y or default_quality([rows])
    points = rows[[x, y]].dropna().to_numpy(dtype=np.float64)
    value = 0.0
    if len(points):
        value = float(moocore.hypervolume(points, ref=list(ref), maximise=MAXIMISE))

    cost, quality = ref
    area = cost * (100 - quality)
    return Hypervolume(
        value=value,
        x=cost,
        y=quality,
        share=value / area if area > 0 else 0.0,
    )


def reference_point(table: pd.DataFrame, *, x: str = "gmacs") -> tuple[float, float]:
    """The largest cost of a parent, or of a row where no parent's is known, at a quality of 0 %."""
    for column in (f"parent_{x}", x):
        if column not in table.columns:
            continue
        costs = table[column]
        if costs.notna().any():
            return float(costs.max()), 0.0
    return 0.0, 0.0

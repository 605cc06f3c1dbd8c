"""Pareto fronts of architecture tables and their hypervolume."""

from __future__ import annotations

from dataclasses import dataclass

import moocore
import numpy as np
import pandas as pd

from ofbnas.errors import InputError

COSTS = ("gmacs", "params", "latency_ms", "seconds", "gpu_hours")
QUALITIES = ("top1", "top5", "val_top1")


@dataclass(frozen=True)
class Hypervolume:
    """The area a front dominates.

    Attributes:
        value: In units of x times units of y.
        x: Cost of the reference point.
        y: Quality of the reference point.
        share: Of the area between the reference point and no cost at 100 %; 0 where that has no area.
    """

    value: float
    x: float
    y: float
    share: float


def front(table: pd.DataFrame, *, x: str = "gmacs", y: str = "top1") -> pd.DataFrame:
    """The rows that no other row beats: none has less x and no less y, or no more x and more y.

    Of rows with equal x and y the first is kept. Rows that `comparable` leaves out are left out.

    Args:
        table: As `read_table` gives it.
        x: A cost to be small.
        y: A quality to be large.

    Returns:
        The front's rows by ascending x; their order in the table does not matter.

    Raises:
        InputError: The table has no such column.
    """
    for column, known in ((x, COSTS), (y, QUALITIES)):
        if column not in known or column not in table.columns:
            raise InputError(f"column {column} cannot be compared here; expected one of {', '.join(known)}")
    rows = comparable(table, x, y)
    if rows.empty:
        return rows
    points = rows[[x, y]].to_numpy(dtype=np.float64)
    best = moocore.is_nondominated(points, maximise=[False, True], keep_weakly=False)
    found: pd.DataFrame = rows[best].sort_values(x, kind="stable", ignore_index=True)
    return found


def comparable(table: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """The rows that have both x and y, but none of a trial that failed or was pruned, whatever it says."""
    rows = table.dropna(subset=[x, y])
    return rows[rows["status"] == "complete"] if "status" in rows.columns else rows


def hypervolume(rows: pd.DataFrame, *, x: str = "gmacs", y: str = "top1", ref: tuple[float, float]) -> Hypervolume:
    """The area that rows dominate, up to a reference point.

    Args:
        rows: Of a table; dominated ones add nothing, and neither do those beyond the reference point.
        x: A cost to be small.
        y: A quality to be large, in percent.
        ref: The reference point, (x, y), for example the parent's cost and 0 %.
    """
    points = rows[[x, y]].dropna().to_numpy(dtype=np.float64)
    value = float(moocore.hypervolume(points, ref=list(ref), maximise=[False, True])) if len(points) else 0.0
    box = ref[0] * (100 - ref[1])
    return Hypervolume(value, ref[0], ref[1], value / box if box > 0 else 0.0)


def reference_point(table: pd.DataFrame, *, x: str = "gmacs") -> tuple[float, float]:
    """The largest parent's cost at 0 %, or the table's largest cost where the parent's is not known."""
    for column in (f"parent_{x}", x):
        if column in table.columns and table[column].notna().any():
            return float(table[column].max()), 0.0
    return 0.0, 0.0

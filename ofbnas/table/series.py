"""What a drawing of fronts shows, whichever library draws it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ofbnas.errors import InputError
from ofbnas.files.untrusted import visible
from ofbnas.table.attainment import runs_of, surface
from ofbnas.table.columns import comparable
from ofbnas.table.front import comparable_rows, front
from ofbnas.table.indicators import Points, best_below
from ofbnas.table.parents import parents
from ofbnas.table.units import Unit, unit_of

# Okabe and Ito's colors, which color-blind readers can tell apart, without yellow, which is too
# light for lines on white, and with brown instead.
COLORS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7a4a21",
)  # fmt: skip
# Marks as matplotlib and plotly name them. Their number has no common divisor with that of colors,
# so colors and marks that begin again together do so late.
MARKS = (
    ("o", "circle"), ("s", "square"), ("^", "triangle-up"), ("D", "diamond"), ("v", "triangle-down"),
    ("P", "cross"), ("X", "x"), ("p", "pentagon"), ("h", "hexagon"),
)  # fmt: skip


@dataclass(frozen=True)
class Series:
    """What is drawn of one table.

    Attributes:
        label: Its name, safe to be displayed.
        color: Of all its marks; no other series has the same color and the same mark.
        mark: matplotlib's and plotly's name of its mark.
        rows: Its rows that have both columns.
        front: Those on its front.
        band: Where it has several runs of one study: costs, and at each the quality that all
            runs attain and the one that any attains; otherwise None.
    """

    label: str
    color: str
    mark: tuple[str, str]
    rows: pd.DataFrame
    front: pd.DataFrame
    band: tuple[Points, Points, Points] | None


@dataclass(frozen=True)
class Drawing:
    """A drawing of fronts.

    Attributes:
        x: Cost, along the horizontal axis.
        y: Quality.
        series: What is drawn of each table.
        parents: Name of each parent, safe to be displayed, to its points (x, y).
        unit: That of x, in which all its values are given here.
    """

    x: str
    y: str
    series: Sequence[Series]
    parents: Mapping[str, Sequence[tuple[float, ...]]]

    unit: Unit

    @property
    def labels(self) -> tuple[str, str]:
        """The labels of both axes."""
        return _label(self.x, self.unit), _label(self.y, unit_of(self.y, 100))


def drawing_of(tables: Mapping[str, pd.DataFrame], x: str, y: str) -> Drawing:
    """What is drawn of tables.

    Raises:
        InputError: A table has no such column, or no row has both.
    """
    fronts = {label: front(table, x=x, y=y) for label, table in tables.items()}  # checks columns
    joined = pd.concat(tables.values(), ignore_index=True)
    known = parents(joined, x, y)
    costs = [*joined[x].dropna(), *(point[0] for points in known.values() for point in points)]
    unit = unit_of(x, max(costs, default=0.0))

    series = []
    for index, (label, table) in enumerate(tables.items()):
        best = fronts[label].assign(**{x: fronts[label][x] * unit.factor})
        rows = comparable_rows(table, x, y)
        rows = rows.assign(**{x: rows[x] * unit.factor})
        series.append(
            Series(
                label=visible(label),  # it may come from a stranger's table
                color=COLORS[index % len(COLORS)],
                mark=MARKS[index % len(MARKS)],
                rows=rows,
                front=best,
                band=_band(rows, x, y),
            )
        )
    if all(drawn.front.empty for drawn in series):
        raise InputError(
            f"no row of {', '.join(tables)} has both {x} and {y}: there is no front to draw"
        )
    named = {}
    for model, points in known.items():
        named[visible(model)] = [(cost * unit.factor, quality) for cost, quality in points]
    return Drawing(x, y, series, named, unit)


def _label(column: str, unit: Unit) -> str:
    """The label of an axis that shows a column in a unit."""
    label = comparable()[column].label
    return f"{label}, {unit.name}" if unit.name else label


def _band(rows: pd.DataFrame, x: str, y: str) -> tuple[Points, Points, Points] | None:
    """The band of `Series`."""
    if rows.empty or rows["study"].nunique() > 1:
        return None
    runs = runs_of(rows, x, y)
    if len(runs) < 2:
        return None
    worst = np.array(surface(runs, 100))
    best = np.array(surface(runs, 0))
    costs = np.union1d(worst[:, 0], best[:, 0])
    costs = costs[costs >= worst[0, 0]]  # below, some run attains nothing
    return costs, best_below(worst, costs), best_below(best, costs)

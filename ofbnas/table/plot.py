"""Pareto fronts as static pictures and interactive pages."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ofbnas.errors import InputError
from ofbnas.files import durable
from ofbnas.files.untrusted import visible
from ofbnas.table.columns import comparable
from ofbnas.table.front import comparable_rows, default_quality, front

if TYPE_CHECKING:
    import pandas as pd

COMPARABLE = comparable()

# Okabe and Ito's colors, which color-blind readers can tell apart.
COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]


def plot_front(
    tables: Mapping[str, pd.DataFrame],
    out: Path,
    *,
    x: str = "gmacs",
    y: str | None = None,
) -> None:
    """Draw the fronts of tables, all their architectures and their parents.

    Args:
        tables: Label to table.
        out: Where to write: .html makes a page with plotly; .png, .svg and .pdf a picture with
            matplotlib.
        x: Cost, along the horizontal axis.
        y: Quality; by default that of `default_quality`.

    Raises:
        InputError: The file has another suffix, there is nothing to draw, or the library is not
            installed.
    """
    y = y or default_quality(tables.values())
    # Labels may come from a stranger's table.
    series: list[_Series] = []
    for label, table in tables.items():
        color = COLORS[len(series) % len(COLORS)]
        series.append(_series_of(visible(label), color, table, x, y))
    if all(drawn.front.empty for drawn in series):
        raise InputError(
            f"no row of {', '.join(tables)} has both {x} and {y}: there is no front to draw"
        )

    if out.suffix == ".html":
        _page(series, out, x, y)
    elif out.suffix in (".png", ".svg", ".pdf"):
        _picture(series, out, x, y)
    else:
        raise InputError(
            f"{out}: cannot write {out.suffix or 'a file without ending'}; "
            "expected .png, .svg, .pdf or .html"
        )


@dataclass(frozen=True)
class _Series:
    """What is drawn of one table.

    Attributes:
        label: Its name, safe to be displayed.
        color: Of all its marks.
        rows: Its rows that have both columns.
        front: Those on its front.
        parent: The parent's point (x, y), None where the table has none.
    """

    label: str
    color: str
    rows: pd.DataFrame
    front: pd.DataFrame
    parent: tuple[float, float] | None


def _series_of(label: str, color: str, table: pd.DataFrame, x: str, y: str) -> _Series:
    """What is drawn of a table."""
    return _Series(
        label=label,
        color=color,
        front=front(table, x=x, y=y),  # first, as it checks the columns
        rows=comparable_rows(table, x, y),
        parent=_parent(table, x, y),
    )


def _picture(series: Sequence[_Series], out: Path, x: str, y: str) -> None:
    """Draw with matplotlib."""
    figure_module = _need("matplotlib.figure")
    figure = figure_module.Figure(figsize=(5.2, 3.6), dpi=200, layout="constrained")
    plot = figure.subplots()
    several = len(series) > 1
    for drawn in series:
        _add_to_picture(plot, drawn, x, y, several=several)

    plot.set_xlabel(COMPARABLE[x].axis)
    plot.set_ylabel(COMPARABLE[y].axis)
    plot.locator_params(axis="x", nbins=6)
    plot.ticklabel_format(axis="x", scilimits=(-3, 5), useMathText=True)
    plot.grid(visible=True, color="#dddddd", linewidth=0.5)
    plot.set_axisbelow(True)
    plot.spines[["top", "right"]].set_visible(False)

    legend = plot.legend(frameon=False, loc="lower right", fontsize="small")
    for text in legend.get_texts():
        text.set_parse_math(False)  # a label is a name, not a formula

    with durable.writing(out) as file:
        figure.savefig(file, format=out.suffix[1:])


def _add_to_picture(plot: Any, drawn: _Series, x: str, y: str, *, several: bool) -> None:
    """Add the rows, the front and the parent of a table to matplotlib's axes."""
    color = drawn.color
    plot.scatter(
        drawn.rows[x],
        drawn.rows[y],
        s=14,
        color=color,
        alpha=0.3,
        linewidths=0,
    )
    plot.step(
        drawn.front[x],
        drawn.front[y],
        where="post",
        color=color,
        linewidth=1.2,
    )
    plot.plot(
        drawn.front[x],
        drawn.front[y],
        "o",
        color=color,
        markersize=4.5,
        label=drawn.label if several else "front",
    )
    if drawn.parent is not None:
        plot.plot(
            *drawn.parent,
            "*",
            label=f"parent of {drawn.label}" if several else "parent",
            color=color,
            markersize=10,
            markeredgewidth=0,
        )


def _page(series: Sequence[_Series], out: Path, x: str, y: str) -> None:
    """Draw with plotly."""
    graphs = _need("plotly.graph_objects")
    layout = {
        "template": "plotly_white",
        "xaxis_title": COMPARABLE[x].axis,
        "yaxis_title": COMPARABLE[y].axis,
        "xaxis_exponentformat": "power",
        "yaxis_tickformat": ".2f",
    }
    figure = graphs.Figure(layout=layout)
    for drawn in series:
        _add_to_page(figure, drawn, x, y)
    durable.write(out, figure.to_html(include_plotlyjs=True))


def _add_to_page(figure: Any, drawn: _Series, x: str, y: str) -> None:
    """Add the rows, the front and the parent of a table to plotly's figure."""
    title = html.escape(drawn.label)
    hover = (
        "%{customdata[0]}<br>trial %{customdata[1]}<br>"
        f"{x} %{{x:.4g}}<br>{y} %{{y:.2f}}<extra></extra>"
    )
    layers = (
        ("all", drawn.rows, "markers", 0.35),
        ("front", drawn.front, "lines+markers", 1),
    )
    for name, rows, mode, opacity in layers:
        names_of_rows = rows[["arch_id", "trial"]].astype(str)
        figure.add_scatter(
            x=rows[x].tolist(),
            y=rows[y].tolist(),
            customdata=names_of_rows.to_numpy().tolist(),
            name=f"{title}: {name}",
            mode=mode,
            opacity=opacity,
            marker={"color": drawn.color, "size": 8},
            line={"shape": "hv", "color": drawn.color},
            hovertemplate=hover,
        )

    if drawn.parent is not None:
        parent_x, parent_y = drawn.parent
        figure.add_scatter(
            x=[parent_x],
            y=[parent_y],
            name=f"{title}: parent",
            mode="markers",
            marker={"color": drawn.color, "size": 14, "symbol": "star"},
        )


def _parent(table: pd.DataFrame, x: str, y: str) -> tuple[float, float] | None:
    """The parent's point, where the table has one."""
    parent_x = f"parent_{x}"
    parent_y = f"parent_{y}"
    if not {parent_x, parent_y} <= set(table.columns):
        return None
    known = table.dropna(subset=[parent_x, parent_y])
    if known.empty:
        return None
    first = known.iloc[0]
    return float(first[parent_x]), float(first[parent_y])


def _need(module: str) -> ModuleType:
    """A module of a plotting library, which may be missing from an installation.

    Raises:
        InputError: It is not installed.
    """
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError:
        library = module.split(".")[0]
        raise InputError(
            f"{library} is not installed, but this drawing needs it: pip install {library}"
        ) from None

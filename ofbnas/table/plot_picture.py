"""Fronts as a static picture, with matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ofbnas.files import durable
from ofbnas.table.series import Drawing, Series

WIDTH, HEIGHT = 5.2, 3.6  # inches, without the legend
ROW = 0.19  # inches, of the legend
LONG = 44  # characters; the legend has one column where a label is longer


def write_picture(drawing: Drawing, out: Path, figures: Any) -> None:
    """Draw into a file, in the format of its ending.

    Args:
        drawing: What to draw.
        out: The file.
        figures: The module matplotlib.figure.
    """
    figure = picture_of(drawing, figures)
    with durable.writing(out) as file:
        figure.savefig(file, format=out.suffix[1:])


def picture_of(drawing: Drawing, figures: Any) -> Any:
    """The drawing as matplotlib's figure."""
    figure = figures.Figure(dpi=200, layout="constrained")
    plot = figure.subplots()
    for drawn in drawing.series:
        name = drawn.label if len(drawing.series) > 1 else "front"
        _add(plot, drawn, drawing, name)
    for number, (name, points) in enumerate(drawing.parents.items(), start=1):
        _add_parent(plot, points, name, number if len(drawing.parents) > 1 else None)

    across, up = drawing.labels
    plot.set_xlabel(across)
    plot.set_ylabel(up)
    plot.locator_params(axis="x", nbins=6)
    plot.grid(visible=True, color="#dddddd", linewidth=0.5)
    plot.set_axisbelow(True)
    plot.spines[["top", "right"]].set_visible(False)
    _add_legend(figure, plot)
    return figure


def _add(plot: Any, drawn: Series, drawing: Drawing, name: str) -> None:
    """Add the rows, the band and the front of a table to matplotlib's axes."""
    x, y = drawing.x, drawing.y
    mark = drawn.mark[0]
    plot.scatter(
        drawn.rows[x], drawn.rows[y], s=14, marker=mark, color=drawn.color, alpha=0.3, linewidths=0
    )
    if drawn.band is not None:
        costs, all_attain, any_attains = drawn.band
        plot.fill_between(
            costs, all_attain, any_attains, step="post", color=drawn.color, alpha=0.15, linewidth=0
        )
    plot.step(drawn.front[x], drawn.front[y], where="post", color=drawn.color, linewidth=1.2)
    plot.plot(
        drawn.front[x],
        drawn.front[y],
        mark,
        color=drawn.color,
        markersize=4.5,
        label=name if drawn.band is None else f"{name}; band: over seeds",
    )


def _add_parent(plot: Any, points: Any, name: str, number: int | None) -> None:
    """Add a parent: a star, or where there are several, one with its number."""
    xs, ys = zip(*points, strict=True)
    label = "parent" if number is None else f"parent {number}"
    star = {"color": "#444444", "linestyle": "none", "markeredgewidth": 0}
    plot.plot(xs, ys, marker="*", markersize=11, label=f"{label}: {name}", **star)
    if number is None:
        return
    for point in points:
        plot.annotate(
            str(number),
            point,
            xytext=(5, 4),
            textcoords="offset points",
            fontsize=7,
            color="#444444",
        )


def _add_legend(figure: Any, plot: Any) -> None:
    """Add a legend below the axes, where it hides nothing, and make the figure high enough for it."""
    handles, labels = plot.get_legend_handles_labels()
    columns = 1 if max(map(len, labels)) > LONG else 2
    rows = -(-len(labels) // columns)
    figure.set_size_inches(WIDTH, HEIGHT + ROW * rows)
    legend = figure.legend(
        handles, labels, frameon=False, loc="outside lower center", ncols=columns, fontsize="small"
    )
    for text in legend.get_texts():
        text.set_parse_math(False)  # a label is a name, not a formula

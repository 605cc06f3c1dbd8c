"""The picture of the README: what benchmarks/quality.py found, accuracy against cost.

python benchmarks/quality_picture.py    # writes docs/pictures/quality-light.svg and -dark.svg
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from quality_tables import read

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PICTURES = ROOT / "docs" / "pictures"
SIZE = (5.2, 3.7)  # inches; drawn for a width of 480 pixels, so that a phone does not shrink it
PARENTS = {"idle": "many idle parts", "vit": "few idle parts"}
APART = 0.14  # between methods of one budget, as a share of the distance between budgets


class Method(NamedTuple):
    """How a row of the benchmark is drawn, and its color on light and on dark.

    Attributes:
        label: Its name in the legend.
        mark: matplotlib's name of its mark.
        light: Color on white.
        dark: Color on black.
    """

    label: str
    mark: str
    light: str
    dark: str


METHODS = {
    "default": Method("ofbnas, default", "o", "#0b62c4", "#6cb0ff"),
    "uniform, compensated": Method("uniform sizes, compensated", "s", "#b35900", "#ffb05c"),
    "Torch-Pruning, global": Method("Torch-Pruning, global", "^", "#00795c", "#4fd1ac"),
    "uniform": Method("uniform sizes", "D", "#8a4a86", "#e0a3dc"),
}
INK = {"light": "#1f2328", "dark": "#e6edf3"}
FAINT = {"light": "#d0d7de", "dark": "#3d444d"}


def pictures(results: pd.DataFrame, folder: Path) -> None:
    """Draw the results for light and for dark pages.

    Args:
        results: Those of benchmarks/quality.py.
        folder: Where to write.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Letters become paths, so that no label depends on the fonts of whoever looks.
    settings = {"svg.hashsalt": "ofbnas", "svg.fonttype": "path", "font.size": 10}
    for mode in ("light", "dark"):
        with mpl.rc_context(settings):
            figure = _figure(results, mode)
            metadata = {"Date": None, "Title": "ofbnas", "Description": described(results)}
            file = folder / f"quality-{mode}.svg"
            figure.savefig(file, format="svg", transparent=True, metadata=metadata)


def described(results: pd.DataFrame) -> str:
    """What the picture shows, in words: the mean and the number of seeds of each point."""
    parts = []
    for (parent, budget, row), runs in _drawn(results).groupby(["parent", "budget", "row"]):
        top1 = runs["top1"]
        parts.append(f"{parent} at {budget:.1%}: {row} {top1.mean():.2f} ({len(top1)} seeds)")
    return "; ".join(parts)


def _drawn(results: pd.DataFrame) -> pd.DataFrame:
    """The rows that the picture shows."""
    known = results["row"].isin(list(METHODS)) & results["parent"].isin(list(PARENTS))
    return results[known & ~results["distilled"]]  # one recipe


def _figure(results: pd.DataFrame, mode: str) -> Figure:
    """Both parents side by side, on one scale of accuracy."""
    figure = Figure(figsize=SIZE, layout="constrained")
    plots = figure.subplots(1, len(PARENTS), sharey=True)
    drawn = _drawn(results)
    budgets = sorted(drawn["budget"].unique())
    for plot, (parent, title) in zip(plots, PARENTS.items(), strict=True):
        _add_parent(plot, drawn[drawn["parent"] == parent], budgets, mode)
        plot.set_title(title, fontsize=10, color=INK[mode])
    plots[0].set_ylim(top=results["parent_top1"].max() + 1.2)  # room for what is written above
    plots[0].set_ylabel("top-1 on test images, %", color=INK[mode])
    figure.supxlabel("multiply-accumulates, % of the parent's", fontsize=10, color=INK[mode])
    handles, labels = plots[-1].get_legend_handles_labels()
    legend = {"loc": "outside upper center", "ncols": 2, "frameon": False, "fontsize": 9}
    figure.legend(handles, labels, labelcolor=INK[mode], **legend)
    return figure


def _add_parent(plot: Any, of_parent: pd.DataFrame, budgets: list[float], mode: str) -> None:
    """Draw what was made of one parent: a point for each seed, a line through the means."""
    accuracy = of_parent["parent_top1"].iloc[0]
    plot.axhline(accuracy, color=INK[mode], linewidth=1, linestyle=(0, (4, 3)))
    above = {"textcoords": "offset points", "xytext": (0, 3), "va": "bottom", "ha": "left"}
    plot.annotate(
        f"the parent: {accuracy:.1f}", (-0.45, accuracy), color=INK[mode], fontsize=9, **above
    )
    for number, (row, method) in enumerate(METHODS.items()):
        runs = of_parent[of_parent["row"] == row]
        shift = (number - (len(METHODS) - 1) / 2) * APART
        color = getattr(method, mode)
        places = [budgets.index(budget) + shift for budget in runs["budget"]]
        plot.plot(
            places,
            runs["top1"],
            method.mark,
            color=color,
            markersize=5,
            alpha=0.75,
            markeredgewidth=0,
        )
        means = runs.groupby("budget")["top1"].mean()
        at = [budgets.index(budget) + shift for budget in means.index]
        style = {"color": color, "marker": method.mark, "markersize": 5, "linewidth": 1.2}
        plot.plot(at, means, label=method.label, markerfacecolor="none", **style)

    plot.set_xlim(-0.5, len(budgets) - 0.5)
    plot.set_xticks(range(len(budgets)), [f"{100 * budget:g}" for budget in budgets])
    plot.grid(axis="y", color=FAINT[mode], linewidth=0.6)
    plot.set_axisbelow(True)
    plot.tick_params(colors=INK[mode], length=0)
    plot.spines[["top", "right", "left"]].set_visible(False)
    plot.spines["bottom"].set_color(FAINT[mode])


if __name__ == "__main__":
    pictures(read(RESULTS), PICTURES)

"""Pareto fronts as pictures and pages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from ofbnas.errors import InputError
from ofbnas.front import comparable, front

if TYPE_CHECKING:
    import pandas as pd

LABELS = {
    "gmacs": "GMACs per image",
    "params": "parameters",
    "latency_ms": "latency, ms",
    "seconds": "search time, s",
    "gpu_hours": "search, GPU hours",
    "top1": "top-1 accuracy, %",
    "top5": "top-5 accuracy, %",
    "val_top1": "top-1 accuracy on validation images, %",
}
COLORS = [
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
]  # Okabe and Ito's, safe for all eyes


def plot_front(tables: Mapping[str, pd.DataFrame], out: Path, *, x: str = "gmacs", y: str = "top1") -> None:
    """Draw the fronts of tables, all their architectures and their parents.

    Args:
        tables: Label to table.
        out: .html makes a page with plotly; .png, .svg and .pdf a picture with matplotlib.
        x: Cost, along the horizontal axis.
        y: Quality.

    Raises:
        InputError: The ending is another, there is nothing to draw, or the library is not installed.
    """
    fronts = {label: front(table, x=x, y=y) for label, table in tables.items()}
    if all(rows.empty for rows in fronts.values()):
        raise InputError(f"no row of {', '.join(tables)} has both {x} and {y}: there is no front to draw")
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".html":
        _page(tables, fronts, out, x, y)
    elif out.suffix in (".png", ".svg", ".pdf"):
        _picture(tables, fronts, out, x, y)
    else:
        raise InputError(
            f"{out}: cannot write {out.suffix or 'a file without ending'}; expected .png, .svg, .pdf or .html"
        )


def _picture(tables: Mapping[str, pd.DataFrame], fronts: Mapping[str, pd.DataFrame], out: Path, x: str, y: str) -> None:
    figure_module = _need("matplotlib.figure")
    figure = figure_module.Figure(figsize=(5.2, 3.6), dpi=200, layout="constrained")
    plot = figure.subplots()
    for index, (label, table) in enumerate(tables.items()):
        color = COLORS[index % len(COLORS)]
        rows = comparable(table, x, y)
        name, of = (label, f" of {label}") if len(tables) > 1 else ("front", "")
        plot.scatter(rows[x], rows[y], s=14, color=color, alpha=0.3, linewidths=0)
        plot.step(fronts[label][x], fronts[label][y], where="post", color=color, linewidth=1.2)
        plot.plot(fronts[label][x], fronts[label][y], "o", color=color, markersize=4.5, label=name)
        if (parent := _parent(table, x, y)) is not None:
            plot.plot(*parent, "*", color=color, markersize=10, markeredgewidth=0, label=f"parent{of}")
    plot.set_xlabel(LABELS[x])
    plot.set_ylabel(LABELS[y])
    plot.locator_params(axis="x", nbins=6)
    plot.ticklabel_format(axis="x", scilimits=(-3, 5), useMathText=True)
    plot.grid(visible=True, color="#dddddd", linewidth=0.5)
    plot.set_axisbelow(True)
    plot.spines[["top", "right"]].set_visible(False)
    plot.legend(frameon=False, loc="lower right", fontsize="small")
    figure.savefig(out)


def _page(tables: Mapping[str, pd.DataFrame], fronts: Mapping[str, pd.DataFrame], out: Path, x: str, y: str) -> None:
    graphs = _need("plotly.graph_objects")
    layout = {"template": "plotly_white", "xaxis_title": LABELS[x], "yaxis_title": LABELS[y]}
    figure = graphs.Figure(layout=layout | {"xaxis_exponentformat": "power", "yaxis_tickformat": ".2f"})
    for index, (label, table) in enumerate(tables.items()):
        color = COLORS[index % len(COLORS)]
        rows = comparable(table, x, y)
        hover = "%{customdata[0]}<br>trial %{customdata[1]}<br>" + f"{x} %{{x:.4g}}<br>{y} %{{y:.2f}}<extra></extra>"
        for name, shown, mode, opacity in (
            ("all", rows, "markers", 0.35),
            ("front", fronts[label], "lines+markers", 1),
        ):
            figure.add_scatter(
                x=shown[x].tolist(),
                y=shown[y].tolist(),
                customdata=shown[["arch_id", "trial"]].astype(str).to_numpy().tolist(),
                name=f"{label}: {name}",
                mode=mode,
                opacity=opacity,
                marker={"color": color, "size": 8},
                line={"shape": "hv", "color": color},
                hovertemplate=hover,
            )
        if (parent := _parent(table, x, y)) is not None:
            star = {"color": color, "size": 14, "symbol": "star"}
            figure.add_scatter(x=[parent[0]], y=[parent[1]], name=f"{label}: parent", mode="markers", marker=star)
    figure.write_html(out, include_plotlyjs=True)


def _parent(table: pd.DataFrame, x: str, y: str) -> tuple[float, float] | None:
    """The parent's point, where the table has one."""
    if f"parent_{x}" not in table.columns or f"parent_{y}" not in table.columns:
        return None
    known = table.dropna(subset=[f"parent_{x}", f"parent_{y}"])
    return None if known.empty else (float(known[f"parent_{x}"].iloc[0]), float(known[f"parent_{y}"].iloc[0]))


def _need(module: str) -> ModuleType:
    """A plotting library, which is an extra."""
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError:
        library = module.split(".")[0]
        raise InputError(f"{library} is not installed, but this drawing needs it: pip install 'ofbnas[plot]'") from None

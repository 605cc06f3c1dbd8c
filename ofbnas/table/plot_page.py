"""Fronts as an interactive page, with plotly."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from ofbnas.files import durable
from ofbnas.table.series import Drawing, Series


def write_page(drawing: Drawing, out: Path, graphs: Any) -> None:
    """Draw into a page that needs nothing else.

    Args:
        drawing: What to draw.
        out: The file.
        graphs: The module plotly.graph_objects.
    """
    across, up = drawing.labels
    layout = {
        "template": "plotly_white",
        "xaxis_title": across,
        "yaxis_title": up,
        "yaxis_tickformat": ".2f",
        "legend": {"orientation": "h", "yanchor": "top", "y": -0.15},
    }
    figure = graphs.Figure(layout=layout)
    for drawn in drawing.series:
        if drawn.band is not None:
            _add_band(figure, drawn)
        _add(figure, drawn, drawing)
    for name, points in drawing.parents.items():
        xs, ys = zip(*points, strict=True)
        figure.add_scatter(
            x=list(xs),
            y=list(ys),
            name=f"parent: {html.escape(name)}",
            mode="markers",
            marker={"color": "#444444", "size": 14, "symbol": "star"},
        )
    durable.write(out, figure.to_html(include_plotlyjs=True))


def _add(figure: Any, drawn: Series, drawing: Drawing) -> None:
    """Add the rows and the front of a table to plotly's figure."""
    x, y = drawing.x, drawing.y
    title = html.escape(drawn.label)
    hover = (
        "%{customdata[0]}<br>trial %{customdata[1]}<br>"
        f"{x} %{{x:.4g}} {drawing.unit.name}<br>{y} %{{y:.2f}}<extra></extra>"
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
            marker={"color": drawn.color, "size": 8, "symbol": drawn.mark[1]},
            line={"shape": "hv", "color": drawn.color},
            hovertemplate=hover,
        )


def _add_band(figure: Any, drawn: Series) -> None:
    """Add what all and what any of a series' runs attain."""
    assert drawn.band is not None
    costs, *bounds = drawn.band
    for bound, fill in zip(bounds, (None, "tonexty"), strict=True):
        figure.add_scatter(
            x=costs.tolist(),
            y=bound.tolist(),
            name=f"{html.escape(drawn.label)}: over seeds",
            mode="lines",
            line={"shape": "hv", "width": 0, "color": drawn.color},
            fill=fill,
            opacity=0.15,
            hoverinfo="skip",
            showlegend=fill is not None,
        )

"""Pareto fronts as static pictures and interactive pages."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from ofbnas.errors import InputError
from ofbnas.table.front import default_quality
from ofbnas.table.series import drawing_of

if TYPE_CHECKING:
    import pandas as pd

PICTURES = (".png", ".svg", ".pdf")


def plot_front(
    tables: Mapping[str, pd.DataFrame],
    out: Path,
    *,
    x: str = "gmacs",
    y: str | None = None,
) -> None:
    """Draw the fronts of tables, all their architectures and their parents.

    Each table has a color and a mark of its own. Where one has several runs of a study, which differ
    by their seed, a band covers what all and what any of them attain.

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
    drawing = drawing_of(tables, x, y or default_quality(tables.values()))
    if out.suffix == ".html":
        from ofbnas.table.plot_page import write_page

        write_page(drawing, out, _need("plotly.graph_objects"))
    elif out.suffix in PICTURES:
        from ofbnas.table.plot_picture import write_picture

        write_picture(drawing, out, _need("matplotlib.figure"))
    else:
        raise InputError(
            f"{out}: cannot write {out.suffix or 'a file without ending'}; "
            f"expected {', '.join(PICTURES)} or .html"
        )


def _need(module: str) -> ModuleType:
    """A module of a plotting library, which may be missing from an installation.

    Raises:
        InputError: It is not installed.
    """
    try:
        return import_module(module)
    except ImportError:
        library = module.split(".")[0]
        raise InputError(
            f"{library} is not installed, but this drawing needs it: pip install {library}"
        ) from None

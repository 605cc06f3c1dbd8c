"""Where figures should be taken with care, in sentences: those of a row, and those of a front."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ofbnas.table.columns import Row

if TYPE_CHECKING:
    import pandas as pd

FEW_IMAGES = 500  # below, accuracies that differ by a point or two may well be equal
TEST_QUALITIES = ("top1", "top5", "knn_top1")  # measured on test images


def row_warnings(row: Row) -> str | None:
    """What to say about a trial, or None; what its row does not know is not spoken of."""
    warnings = []
    if row.forced is not None and row.axes is not None and _are_most_forced(row.forced, row.axes):
        warnings.append(
            f"{row.forced} of {row.axes} axes were still open when all had to be decided: "
            "the search had too little time, or search.one_hot_weight is too low"
        )
    if row.val_images is not None and row.val_images < FEW_IMAGES:
        margin = ""
        if row.val_top1 is not None:
            points = _margin(row.val_top1, row.val_images)
            margin = f", so val_top1 is known to about ± {points:.1f} points"
        warnings.append(f"there are only {row.val_images} validation images{margin}")
    return "; ".join(warnings) or None


def table_warnings(table: pd.DataFrame, y: str) -> list[str]:
    """What to say about a front of a table.

    Args:
        table: As `read_table` returns it; columns that it lacks are unknown.
        y: The quality that the front was selected by.
    """
    warnings = []
    if {"forced", "axes"} <= set(table.columns):
        known = table.dropna(subset=["forced", "axes"])
        most = sum(map(_are_most_forced, known["forced"], known["axes"]))
        if most:
            warnings.append(
                f"In {most} of {len(table)} rows most axes were still open when all had to be "
                "decided: the searches had too little time, or search.one_hot_weight is too low."
            )

    images: list[float] = []
    if "val_images" in table.columns:
        images = table["val_images"].dropna().tolist()
    fewest = int(min(images, default=FEW_IMAGES))
    if y == "val_top1" and fewest < FEW_IMAGES:
        best = float(table["val_top1"].max())
        warnings.append(
            f"The front was selected on {fewest} validation images: at {best:.1f} %, val_top1 is "
            f"known to about ± {_margin(best, fewest):.1f} points."
        )
    if y in TEST_QUALITIES:
        warnings.append(
            f"The front was selected on test images: the {y} of its rows is too high as an estimate "
            "for new images."
        )
    return warnings


def _are_most_forced(forced: int, axes: int) -> bool:
    """Whether most axes of a search were decided only because the time was over."""
    return forced > axes / 2


def _margin(top1: float, images: int) -> float:
    """Half of the 95 % interval of an accuracy, points, by Agresti and Coull's approximation.

    Two successes and two failures are added, so that it is not 0 at 100 % ("Approximate is better
    than exact for interval estimation of binomial proportions", 1998).
    """
    share = (top1 / 100 * images + 2) / (images + 4)
    return 100 * 1.96 * math.sqrt(share * (1 - share) / (images + 4))

"""Where figures should be taken with care, in sentences: those of a row, and those of a front."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

FEW_IMAGES = 500  # below, accuracies that differ by a point or two may well be equal
TEST_QUALITIES = ("top1", "top5", "knn_top1")  # measured on test images


def row_warnings(forced: int, axes: int, images: int, top1: float | None) -> list[str]:
    """What to say about a trial.

    Args:
        forced: Axes that were still open when all had to be decided.
        axes: Axes in all.
        images: Number of validation images.
        top1: Accuracy on them, percent, or None for a model without a classifier.
    """
    warnings = []
    if _are_most_forced(forced, axes):
        warnings.append(
            f"{forced} of {axes} axes were still open when all had to be decided: "
            "the search had too little time, or search.one_hot_weight is too low"
        )
    if images < FEW_IMAGES:
        margin = ""
        if top1 is not None:
            margin = f", so val_top1 is known to about ± {_margin(top1, images):.1f} points"
        warnings.append(f"there are only {images} validation images{margin}")
    return warnings


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

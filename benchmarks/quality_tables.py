"""The results of benchmarks/quality.py as tables with paired differences."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats


def read(folder: Path) -> pd.DataFrame:
    """All results of a folder.

    Raises:
        FileNotFoundError: It has none.
    """
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise FileNotFoundError(f"{folder} has no results")
    return pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)


def tables(results: pd.DataFrame, against: str) -> Iterator[str]:
    """For each parent, budget and recipe the rows in Markdown, with differences from one of them.

    A difference is the mean over the seeds that both rows have, with its 95 % interval by Student's
    t for paired values; with one seed there is no interval. Accuracy before training is that of the
    validation images. Time is that of one image on one core, relative to the parent's. Seconds are
    those of one core, in all.
    """
    recipe = ["parent", "budget", "share", "epochs", "lr", "distilled"]
    for group, of_group in results.groupby(recipe):
        named = dict(zip(recipe, group, strict=True))
        parent_accuracy = of_group["parent_top1"].iloc[0]
        lines = [
            f"{named['parent']} at {100 * named['budget']:g} % of the MACs, parent "
            f"{parent_accuracy:.2f}; {named['share']:g} of the images, {named['epochs']} epochs, "
            f"lr {named['lr']:g}{', distilled' if named['distilled'] else ''}:",
            "",
            f"| | top-1 | runs | against {against} | MACs, % | time, % "
            "| before training | seconds |",
            "|---|---|---|---|---|---|---|---|",
        ]
        top1 = of_group.pivot_table(index="seed", columns="row", values="top1")
        by_row = of_group.groupby("row")
        shares = 100 * by_row["macs_share"].mean()
        times = 100 * by_row["time_share"].mean()
        before = by_row["val_top1_before_training"].mean()
        seconds = by_row["seconds"].mean()
        for row in top1.mean().sort_values(ascending=False).index:
            difference = ""
            if row != against and against in top1:
                difference = paired((top1[row] - top1[against]).dropna().to_numpy())
            untrained = f"{before[row]:.2f}" if before[row] == before[row] else ""
            lines.append(
                f"| {row} | {top1[row].mean():.2f} | {top1[row].count()} | {difference} "
                f"| {shares[row]:.1f} | {times[row]:.0f} | {untrained} | {seconds[row]:.0f} |"
            )
        yield "\n".join(lines)


def paired(differences: np.ndarray) -> str:
    """The mean of paired differences and, of several, half the width of its 95 % interval.

    >>> paired(np.array([1.0, 2.0, 3.0]))
    '+2.00 ± 2.48'
    >>> paired(np.array([0.5]))
    '+0.50'
    """
    count = len(differences)
    if count == 0:
        return ""
    mean = f"{differences.mean():+.2f}"
    if count == 1:
        return mean
    error = differences.std(ddof=1) / np.sqrt(count)
    return f"{mean} ± {stats.t.ppf(0.975, count - 1) * error:.2f}"

"""What share of several runs attains a point: the empirical attainment function (EAF).

A run attains a point (x, y) if one of its rows costs no more than x and is no worse than y. See
Lopez-Ibanez, Paquete and Stuetzle, Exploratory analysis of stochastic local search algorithms in
biobjective optimization, 2010.
"""

from __future__ import annotations

import moocore
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ofbnas.table.front import MAXIMISE
from ofbnas.table.indicators import Points, best_below

Corners = list[tuple[float, float]]  # points (x, y) of a front, by ascending x


def runs_of(rows: pd.DataFrame, x: str, y: str) -> list[Points]:
    """The points (x, y) of each run: of each study, and of each seed that one was run with.

    Args:
        rows: Rows that have both columns.
        x: The cost.
        y: The quality.
    """
    # A trial's seed is its study's seed plus the trial's number, so this difference is the study's.
    study_seed = rows["seed"] - rows["trial"]
    by_run = rows.groupby([rows["study"], study_seed], sort=False, dropna=False)
    run_of_row = by_run.ngroup().to_numpy()
    points = rows[[x, y]].to_numpy(dtype=np.float64)
    return [points[run_of_row == run] for run in range(run_of_row.max() + 1)]


def surface(runs: list[Points], percent: float) -> Corners:
    """The points that at least `percent` of the runs attain; at 0, those that any run attains."""
    points, run_numbers = _stacked(runs)
    one_run = 100 / len(runs)  # moocore takes no smaller percentage
    percentile = max(percent, one_run)

    # moocore minimizes both axes here, so quality changes its sign, and changes it back.
    sign = [1, -1]
    surface = moocore.eaf(points * sign, run_numbers, percentiles=[percentile])
    corners = surface[:, :2] * sign
    return sorted(corners_of(corners))


def attained_difference(a: list[Points], b: list[Points]) -> list[tuple[float, float, float]]:
    """Where the shares of runs that attain a point differ: the EAF difference.

    Returns:
        Points (x, y, d), where d is the share of the runs of `a` minus that of the runs of `b`.
    """
    stacked_a = np.column_stack(_stacked(a))
    stacked_b = np.column_stack(_stacked(b))
    differences = moocore.eafdiff(stacked_a, stacked_b, maximise=MAXIMISE)
    corners = differences[:, :2]

    # moocore gives its differences in intervals, so the shares themselves are computed here.
    share_a = _share_of_runs(a, corners)
    share_b = _share_of_runs(b, corners)
    result = []
    for (x, y), d in zip(corners_of(corners), (share_a - share_b).tolist(), strict=True):
        result.append((x, y, d))
    return result


def _share_of_runs(runs: list[Points], corners: Points) -> Points:
    """For each corner, the share of the runs that attain it."""
    attained = [_attains(run, corners) for run in runs]
    shares: Points = np.mean(attained, axis=0)
    return shares


def _attains(run: Points, corners: Points) -> NDArray[np.bool_]:
    """For each corner, whether some point of a run costs no more and is no worse."""
    is_best = moocore.is_nondominated(run, maximise=MAXIMISE)
    best = run[is_best]
    ascending = best[:, 0].argsort()
    return best_below(best[ascending], corners[:, 0]) >= corners[:, 1]


def _stacked(runs: list[Points]) -> tuple[Points, Points]:
    """The points of all runs, and for each point the number of its run, from 1."""
    numbers = np.arange(1.0, len(runs) + 1)
    lengths = [len(run) for run in runs]
    return np.concatenate(runs), np.repeat(numbers, lengths)


def corners_of(points: Points) -> Corners:
    """Points as plain numbers."""
    return [(float(x), float(y)) for x, y in points]

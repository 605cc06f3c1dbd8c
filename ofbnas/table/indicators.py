"""Indicators of Pareto fronts in two dimensions, in O(n log n) time.

A front is an array [points, 2] of (cost, quality) by ascending cost, and thus by ascending quality.
"""

from __future__ import annotations

import moocore
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from ofbnas.table.front import MAXIMISE

Points = NDArray[np.float64]
Ranges = list[tuple[float, float]]


def volume_share(points: Points, ref: tuple[float, float]) -> float:
    """Hypervolume as a share of the area between the reference point and no cost at 100 %."""
    is_inside = (points[:, 0] < ref[0]) & (points[:, 1] > ref[1])
    inside = points[is_inside]

    volume = 0.0
    if len(inside):
        volume = float(moocore.hypervolume(inside, ref=list(ref), maximise=MAXIMISE))
    area = ref[0] * (100 - ref[1])
    return volume / area


def epsilon_additive(front: Points, other: Points) -> float:
    """How far a front has to move along both axes to equal or dominate all of the other front."""
    x, y = front.T
    u, v = other.T

    # A point (x, y) needs max(x - u, v - y) to reach (u, v). Along the front x - u rises and v - y
    # falls, so the smallest of these maxima is next to where they cross: x - u = v - y.
    near = _next_to(np.searchsorted(x + y, u + v), len(x))
    needed = np.maximum(x[near] - u, v - y[near])
    least = needed.min(0)  # of the two neighbours, for each point of the other front
    return float(least.max())


def epsilon_multiplicative(front: Points, other: Points) -> float | None:
    """The same as a factor of cost and quality; None where a value is not above 0."""
    if min(front.min(), other.min()) <= 0:
        return None
    x, y = front.T
    u, v = other.T

    # As above, for max(x / u, v / y).
    near = _next_to(np.searchsorted(x * y, u * v), len(x))
    needed = np.maximum(x[near] / u, v / y[near])
    least = needed.min(0)
    return float(least.max())


def _next_to(crossings: NDArray[np.intp], length: int) -> NDArray[np.intp]:
    """Indices of the points just before and just after crossings, [2, crossings]."""
    neighbours = np.stack([crossings - 1, crossings])
    return neighbours.clip(0, length - 1)


def coverage(front: Points, other: Points) -> float:
    """Share of the other front's points that some point of a front equals or dominates."""
    is_covered = best_below(front, other[:, 0]) >= other[:, 1]
    return float(is_covered.mean())


def igd_plus(front: Points, ref: Points) -> float:
    """Mean distance from the points of a reference front to the nearest point of a front.

    The distance from (x, y) to (u, v) counts only excess cost and missing quality: it is the length
    of (max(x - u, 0), max(v - y, 0)). Comparing all points would take quadratic time, but three
    candidates suffice for each (u, v): of the points that cost no more, the best; of those that are
    no worse, the cheapest; and the nearest in the plane. The last counts only where it is both more
    expensive and worse: otherwise one of the other two is at least as near.
    """
    x, y = front.T
    u, v = ref.T

    # Beyond the best point no cost buys the quality, hence the infinite one at the end.
    costs = np.concatenate([x, [np.inf]])
    cheapest_as_good = costs[np.searchsorted(y, v)]
    excess_cost = np.maximum(cheapest_as_good - u, 0)
    missing_quality = np.maximum(v - best_below(front, u), 0)
    along_an_axis = np.minimum(excess_cost, missing_quality)

    in_plane, nearest = KDTree(front).query(ref)
    is_both = (x[nearest] > u) & (y[nearest] < v)
    distance = np.where(is_both, np.minimum(along_an_axis, in_plane), along_an_axis)
    return float(distance.mean())


def best_below(front: Points, costs: Points) -> Points:
    """The quality that a front attains at each cost; -inf below its cheapest point."""
    num_affordable = np.searchsorted(front[:, 0], costs, side="right")
    qualities = np.concatenate([[-np.inf], front[:, 1]])
    return qualities[num_affordable]


def better_ranges(front: Points, other: Points, most: float) -> Ranges:
    """Ranges of cost (from, to), up to `most`, in which a front attains more than the other."""
    all_costs = np.concatenate([front[:, 0], other[:, 0]])
    costs = np.unique(all_costs)
    costs = costs[costs < most]
    ends = np.append(costs, most)[1:]

    # Neither front attains more until the next of these costs, so one comparison at each suffices.
    wins = best_below(front, costs) > best_below(other, costs)

    ranges: Ranges = []
    for start, end in zip(costs[wins].tolist(), ends[wins].tolist(), strict=True):
        if ranges and ranges[-1][1] == start:  # adjacent to the range before it
            first, _ = ranges.pop()
            ranges.append((first, end))
        else:
            ranges.append((start, end))
    return ranges

"""Indicators of Pareto fronts in two dimensions, in time n log n.

A front is [points, 2] of (cost, quality) by ascending cost, and so by ascending quality.
"""

from __future__ import annotations

import moocore
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

Points = NDArray[np.float64]
Ranges = list[tuple[float, float]]
MAXIMISE = [False, True]


def volume_share(points: Points, ref: tuple[float, float]) -> float:
    """Hypervolume as a share of the area between the reference point and no cost at 100 %."""
    inside = points[(points[:, 0] < ref[0]) & (points[:, 1] > ref[1])]
    volume = float(moocore.hypervolume(inside, ref=list(ref), maximise=MAXIMISE)) if len(inside) else 0.0
    return volume / (ref[0] * (100 - ref[1]))


def epsilon_additive(front: Points, other: Points) -> float:
    """By how much a front has to move along both axes until each point of the other is equalled."""
    x, y = front.T
    u, v = other.T
    # Along a front x - u rises and v - y falls, so the smaller of both maxima lies where they cross.
    place = np.searchsorted(x + y, u + v)
    near = np.clip([place - 1, place], 0, len(x) - 1)
    return float(np.maximum(x[near] - u, v - y[near]).min(0).max())


def epsilon_multiplicative(front: Points, other: Points) -> float | None:
    """The same as a factor of cost and quality; None where something is not above 0, which no factor can reach."""
    if min(front.min(), other.min()) <= 0:
        return None
    x, y = front.T
    u, v = other.T
    place = np.searchsorted(x * y, u * v)
    near = np.clip([place - 1, place], 0, len(x) - 1)
    return float(np.maximum(x[near] / u, v / y[near]).min(0).max())


def coverage(front: Points, other: Points) -> float:
    """Share of the other front that some point of a front equals or beats."""
    return float((best_below(front, other[:, 0]) >= other[:, 1]).mean())


def igd_plus(front: Points, ref: Points) -> float:
    """Mean over the reference of how far the nearest point of a front falls short of it.

    That nearest point is the best one as cheap, or the cheapest as good, or else the nearest in the plane if it is
    both dearer and worse: if it is not, one of the other two is nearer still. Compared with all points it would take
    quadratic time.
    """
    x, y = front.T
    u, v = ref.T
    dear = np.concatenate([x, [np.inf]])[np.searchsorted(y, v)] - u
    worse = v - best_below(front, u)
    straight, nearest = KDTree(front).query(ref)
    beyond = (x[nearest] > u) & (y[nearest] < v)
    short = np.minimum(np.maximum(dear, 0), np.maximum(worse, 0))
    return float(np.where(beyond, np.minimum(short, straight), short).mean())


def best_below(front: Points, costs: Points) -> Points:
    """The quality that a front, by ascending cost, attains at costs; -inf where it has nothing so cheap."""
    place = np.searchsorted(front[:, 0], costs, side="right")
    return np.concatenate([[-np.inf], front[:, 1]])[place]


def better_ranges(front: Points, other: Points, most: float) -> Ranges:
    """Ranges of cost (from, to) in which a front attains more than the other, up to a cost."""
    costs = np.unique(np.concatenate([front[:, 0], other[:, 0]]))
    costs = costs[costs < most]
    wins = best_below(front, costs) > best_below(other, costs)
    ends = np.append(costs[1:], most)
    ranges: Ranges = []
    for start, end, won in zip(costs.tolist(), ends.tolist(), wins.tolist(), strict=True):
        if won and ranges and ranges[-1][1] == start:
            ranges[-1] = (ranges[-1][0], end)
        elif won:
            ranges.append((start, end))
    return ranges

"""Which points of a rung are promoted, by all objectives; every objective is minimized here."""

from __future__ import annotations

import numpy as np


def is_promoted(points: np.ndarray, eta: int, worst: np.ndarray | None) -> bool:
    """Whether the last point is among the best 1/eta, rounded up.

    Args:
        points: [trials, objectives], in the order of trials, the one to judge last.
        eta: One in how many is promoted.
        worst: The reference point of hypervolumes, [objectives]. With it, a front that does not fit
            as a whole keeps most hypervolume; without it, it is thinned out evenly.
    """
    ranks = pareto_ranks(points)
    room = -(-len(points) // eta) - int((ranks < ranks[-1]).sum())
    front = np.flatnonzero(ranks == ranks[-1])
    if room <= 0:
        return False
    if room >= len(front):
        return True
    chosen = spread(points[front], room) if worst is None else largest(points[front], room, worst)
    return len(front) - 1 in chosen


def pareto_ranks(points: np.ndarray) -> np.ndarray:
    """The number of each point's front, 0 for the best, [points]; equal points share a front."""
    ranks = np.full(len(points), -1)
    rank = 0
    while (ranks < 0).any():
        left = np.flatnonzero(ranks < 0)
        some = points[left]
        no_worse = (some[:, None] <= some[None]).all(axis=2)
        better = (some[:, None] < some[None]).any(axis=2)
        is_dominated = (no_worse & better).any(axis=0)
        ranks[left[~is_dominated]] = rank
        rank += 1
    return ranks


def largest(front: np.ndarray, room: int, worst: np.ndarray) -> list[int]:
    """Indices left after dropping, one by one, the point that adds the least hypervolume.

    Of points that add equally little, the last is dropped first.
    """
    kept = list(range(len(front)))
    whole = float(np.prod(worst - front.min(axis=0).clip(max=worst)))
    while len(kept) > room:
        added = contributions(front[kept].clip(max=worst), worst)
        # Differences far below rounding errors count as none.
        is_least = added <= added.min() + 1e-12 * whole
        del kept[int(np.flatnonzero(is_least)[-1])]
    return kept


def contributions(front: np.ndarray, worst: np.ndarray) -> np.ndarray:
    """The hypervolume that each point of a front adds to that of the others, [points].

    Args:
        front: Points that do not dominate each other, none beyond the reference point.
        worst: The reference point.
    """
    if front.shape[1] == 2:  # between a point's two neighbours
        order = np.argsort(front[:, 0], kind="stable")
        x, y = front[order].T
        widths = np.append(x[1:], worst[0]) - x
        heights = np.append(worst[1], y[:-1]) - y
        added = np.empty(len(front))
        added[order] = widths * heights
        return added
    added = np.empty(len(front))
    for i, point in enumerate(front):
        others = np.maximum(np.delete(front, i, axis=0), point)  # what they share with the point
        added[i] = np.prod(worst - point) - hypervolume(others, worst)
    return added


def hypervolume(points: np.ndarray, worst: np.ndarray) -> float:
    """The volume between points and the reference point, in slices along the last objective."""
    points = points[(points < worst).all(axis=1)]
    if len(points) == 0:
        return 0.0
    if points.shape[1] == 2:
        x, y = points[np.lexsort((points[:, 1], points[:, 0]))].T
        lowest = np.minimum.accumulate(y)
        widths = np.append(x[1:], worst[0]) - x
        return float((widths * (worst[1] - lowest)).sum())
    points = np.unique(points[pareto_ranks(points) == 0], axis=0)
    points = points[np.argsort(points[:, -1], kind="stable")]
    depths = np.append(points[1:, -1], worst[-1]) - points[:, -1]
    slices = [hypervolume(points[: i + 1, :-1], worst[:-1]) for i in range(len(points))]
    return float(depths @ slices)


def spread(front: np.ndarray, room: int) -> list[int]:
    """Indices of points spread over a front.

    The first is the best by the first objective; each further one is the farthest from those that
    were chosen before, in units of the front's extent along each objective.
    """
    extent = np.ptp(front, axis=0)
    scaled = front / np.where(extent > 0, extent, 1)
    chosen = [int(np.argmin(scaled[:, 0]))]
    nearest = np.full(len(front), np.inf)
    while len(chosen) < room:
        to_latest = np.linalg.norm(scaled - scaled[chosen[-1]], axis=1)
        nearest = np.minimum(nearest, to_latest)
        nearest[chosen[-1]] = -1  # below the distance 0 of an equal point
        chosen.append(int(np.argmax(nearest)))
    return chosen

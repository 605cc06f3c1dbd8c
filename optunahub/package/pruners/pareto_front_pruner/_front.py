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
    while len(kept) > room:
        whole = hypervolume(front[kept], worst)
        added = [
            whole - hypervolume(front[kept[:i] + kept[i + 1 :]], worst) for i in range(len(kept))
        ]
        # Rounding differs between the two volumes, so differences far below either count as none.
        least = min(added) + 1e-12 * max(whole, 1e-300)
        del kept[max(i for i, volume in enumerate(added) if volume <= least)]
    return kept


def hypervolume(points: np.ndarray, worst: np.ndarray) -> float:
    """The volume between some points and the reference point, in slices along the last objective."""
    points = points[(points < worst).all(axis=1)]
    if len(points) == 0:
        return 0.0
    if points.shape[1] == 1:
        return float(worst[0] - points.min())
    points = points[np.argsort(points[:, -1], kind="stable")]
    ends = np.append(points[1:, -1], worst[-1])
    heights = ends - points[:, -1]
    return sum(
        float(height) * hypervolume(points[: i + 1, :-1], worst[:-1])
        for i, height in enumerate(heights)
        if height > 0
    )


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

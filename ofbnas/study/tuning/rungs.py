"""Which trials of a study with several objectives are promoted from a rung.

This is successive halving with fronts in place of one number, as in MO-ASHA (Schmucker et al.,
arXiv 2106.12639). Trials are ranked by non-dominated sorting; where a front has to be divided, they
are ranked by what they add to it. It is asynchronous: a trial is compared with those that reported
at the rung before it did, and no trial waits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import moocore
import numpy as np
from numpy.typing import NDArray

from ofbnas.config.sweep import FrontStopping, Objective

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Reached:
    """A trial at a rung.

    Attributes:
        trial: Its number.
        epoch: The rung.
        values: The metrics it reported there, by the table's columns.
    """

    trial: int
    epoch: int
    values: Mapping[str, float]


def by_front(
    stopping: FrontStopping,
    objectives: Sequence[Objective],
    largest: Mapping[str, float],
    earlier: Sequence[Reached],
    report: Reached,
) -> bool:
    """Whether a trial continues: successive halving by fronts, with a study's settings.

    Args:
        stopping: Its settings.
        objectives: The study's.
        largest: Largest value of each metric; the smallest is 0.
        earlier: What trials reported at rungs before.
        report: What this trial reports.
    """
    rung = [other.values for other in earlier if other.epoch == report.epoch]
    rung.append(report.values)
    points = [[values[objective.metric] for objective in objectives] for values in rung]
    maximise = [objective.mode == "max" for objective in objectives]
    worst = [
        0.0 if objective.mode == "max" else largest[objective.metric] for objective in objectives
    ]
    return is_promoted(
        np.array(points),
        len(rung) - 1,
        maximise=maximise,
        ref=worst,
        eta=stopping.eta,
        ties=stopping.ties,
    )


def is_promoted(
    points: Points,
    index: int,
    *,
    maximise: Sequence[bool],
    ref: Sequence[float],
    eta: int,
    ties: Literal["hypervolume", "epsilon_net"] = "hypervolume",
) -> bool:
    """Whether a trial is among the best 1/eta, rounded up, of those that have reached its rung.

    Args:
        points: What each of them reported, [trials, objectives], in the order of reporting.
        index: The trial's position in that order.
        maximise: For each objective, whether it is maximised.
        ref: The reference point of hypervolumes; points beyond it add nothing.
        eta: One in how many trials is promoted.
        ties: How a front that does not fit as a whole is divided, see `FrontStopping`.
    """
    ranks = moocore.pareto_rank(points, maximise=list(maximise))
    own_rank = ranks[index]
    num_promoted = -(-len(points) // eta)  # rounded up
    num_better = int((ranks < own_rank).sum())
    room = num_promoted - num_better  # for trials of the same front
    front = np.flatnonzero(ranks == own_rank)
    if room <= 0:
        return False
    if room >= len(front):
        return True
    if ties == "hypervolume":
        chosen = _most_hypervolume(points[front], room, maximise, ref)
    else:
        chosen = _epsilon_net(points[front], room, maximise[0])
    return index in front[chosen]


def _most_hypervolume(
    front: Points,
    room: int,
    maximise: Sequence[bool],
    ref: Sequence[float],
) -> list[int]:
    """Indices of points after dropping, one by one, the one that adds least hypervolume."""
    kept = list(range(len(front)))
    while len(kept) > room:
        added = moocore.hv_contributions(
            front[kept],
            ref=list(ref),
            maximise=list(maximise),
        )
        # Reversed, argmin finds the last of equal points: the one that was reported last.
        from_end = int(np.argmin(added[::-1]))
        last_least = len(kept) - 1 - from_end
        del kept[last_least]
    return kept


def _epsilon_net(front: Points, room: int, maximise_first: bool) -> list[int]:
    """Indices of points spread over a front.

    The first is the best by the first objective, each further one the farthest from those chosen
    before. Distances are in units of the front's extent along each objective.
    """
    extent = np.ptp(front, axis=0)
    scaled = front / np.where(extent > 0, extent, 1)
    first = scaled[:, 0]
    best = np.argmax(first) if maximise_first else np.argmin(first)
    chosen = [int(best)]
    distance = np.full(len(front), np.inf)  # to the nearest chosen point
    while len(chosen) < room:
        latest = chosen[-1]
        to_latest = np.linalg.norm(scaled - scaled[latest], axis=1)
        distance = np.minimum(distance, to_latest)
        distance[latest] = -1  # below the 0 of a point that equals it, so it is not chosen twice
        chosen.append(int(np.argmax(distance)))
    return chosen

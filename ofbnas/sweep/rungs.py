"""Which trials of a study with several objectives go on from a rung: a function of what they have told there so far.

Successive halving with fronts in place of one number, as in MO-ASHA (Schmucker et al., arXiv 2106.12639). Trials are
ranked by non-dominated sorting, and where a front has to be divided, by what its trials add to it. It is asynchronous:
a trial is compared with those that were there before it, and nobody waits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import moocore
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Reached:
    """A trial at a rung.

    Attributes:
        trial: Its number.
        epoch: The rung.
        values: What it told there, by the table's columns.
    """

    trial: int
    epoch: int
    values: Mapping[str, float]


def goes_on(
    points: Points,
    asked: int,
    *,
    maximise: Sequence[bool],
    ref: Sequence[float],
    eta: int,
    ties: Literal["hypervolume", "epsilon_net"] = "hypervolume",
) -> bool:
    """Whether a trial is among the best 1/eta, rounded up, of the trials that have reached its rung.

    Args:
        points: What each of them told, [trials, objectives], in the order in which they came.
        asked: The trial's place in that order.
        maximise: For each objective, whether it is to be large.
        ref: The reference point of hypervolumes; points beyond it add nothing.
        eta: Of how many trials one goes on.
        ties: How a front is divided that has not room enough, see `FrontStopping`.
    """
    ranks = moocore.pareto_rank(points, maximise=list(maximise))
    front = np.flatnonzero(ranks == ranks[asked])
    room = -(-len(points) // eta) - int((ranks < ranks[asked]).sum())
    if room <= 0 or room >= len(front):
        return room > 0
    if ties == "hypervolume":
        taken = _most_hypervolume(points[front], room, maximise, ref)
    else:
        taken = _epsilon_net(points[front], room, maximise[0])
    return asked in front[taken]


def _most_hypervolume(front: Points, room: int, maximise: Sequence[bool], ref: Sequence[float]) -> list[int]:
    """What is left of a front when the point that adds least to its hypervolume is dropped again and again."""
    left = list(range(len(front)))
    while len(left) > room:
        added = moocore.hv_contributions(front[left], ref=list(ref), maximise=list(maximise))
        del left[len(left) - 1 - int(np.argmin(added[::-1]))]  # of equals the one that came last
    return left


def _epsilon_net(front: Points, room: int, largest: bool) -> list[int]:
    """The best by the first objective, then again and again the point that is farthest from all that are in.

    Distances are measured in units of the front's extent along each objective.
    """
    extent = np.ptp(front, axis=0)
    scaled = front / np.where(extent > 0, extent, 1)
    taken = [int(np.argmax(scaled[:, 0]) if largest else np.argmin(scaled[:, 0]))]
    nearest = np.full(len(front), np.inf)
    while len(taken) < room:
        nearest = np.minimum(nearest, np.linalg.norm(scaled - scaled[taken[-1]], axis=1))
        nearest[taken[-1]] = -1
        taken.append(int(np.argmax(nearest)))
    return taken

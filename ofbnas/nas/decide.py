"""Which options a decision removes, and which are chosen in the end, with the budget in reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from ofbnas.models.supernet import Supernet
from ofbnas.nas.budget import choose_measured, reachable
from ofbnas.nas.dynamic import Floats, Ints, Window
from ofbnas.nas.knapsack import AnyCost

Alive = dict[str, Tensor]
Item = TypeVar("Item")


class Candidate(NamedTuple):
    """An option that is improbable enough to be removed; candidates sort by probability.

    Attributes:
        probability: The option's probability.
        axis: Name of its axis.
        row: Index of its number of groups, in the mask's table of options.
        column: Index of its number of channels.
    """

    probability: float
    axis: str
    row: int
    column: int


def sizes_alive(
    supernet: Supernet,
    alive: Mapping[str, Tensor] | None = None,
) -> list[Ints]:
    """For each axis the sizes of its options alive, for `budget`.

    Args:
        supernet: Its masks give the options; an axis without a mask has its own size only.
        alive: Options alive, instead of the masks'.
    """
    masks = supernet.masked()
    sizes: list[Ints] = []
    for axis in supernet.axes:
        mask = masks.get(axis.name)
        if mask is None:
            sizes.append(np.array([axis.size]))
            continue
        options = mask.alive if alive is None else alive[axis.name]
        groups = mask.groups[options]
        channels = mask.widths[options] / groups.clamp(min=1)
        pairs = torch.stack([groups, channels], dim=1)
        sizes.append(pairs.long().cpu().numpy())
    return sizes


def survivors(
    supernet: Supernet,
    cost: AnyCost,
    window: Window,
    threshold: float,
) -> Alive:
    """The options that survive a decision, for each mask.

    An option is removed when its probability is at most `threshold` over the number of options
    left; the least probable first, and only while some architecture of the options left still lies
    in the window. Once every axis has a single probable option, only the budget can keep others
    alive, so the rest is decided together.
    """
    candidates: list[Candidate] = []
    each_has_one_left = True
    for name, mask in supernet.masked().items():
        if mask.decided:
            continue
        p = mask.probabilities().detach()
        below = p <= threshold / mask.num_alive
        # The most probable option always stays, also where a threshold of 1 or more exceeds all.
        improbable = mask.alive & below & (p < p.max())
        if int(improbable.sum()) != mask.num_alive - 1:
            each_has_one_left = False
        for row, column in improbable.nonzero().tolist():
            probability = float(p[row, column])
            candidates.append(Candidate(probability, name, row, column))
    if each_has_one_left:
        return best_choice(supernet, cost, window)

    candidates.sort()
    return _remove_in_turn(supernet, candidates, cost, window)


def best_choice(
    supernet: Supernet,
    cost: AnyCost,
    window: Window,
) -> Alive:
    """One option per mask: together the most probable architecture in the window.

    Axes are independent, so its log-probability is the sum of those of its options.
    """
    masks = supernet.masked()
    scores: list[Floats] = []
    for axis in supernet.axes:
        mask = masks.get(axis.name)
        if mask is None:
            scores.append(np.zeros(1))
            continue
        p = mask.probabilities().detach().double()[mask.alive]
        # Clamped, as the knapsack needs finite scores and a probability may underflow to 0.
        log_p = p.clamp(min=1e-300).log()
        scores.append(log_p.cpu().numpy())

    picks = choose_measured(cost, sizes_alive(supernet), scores, window)
    if picks is None:
        raise RuntimeError(
            f"no architecture of the options left lies in {window}, "
            "though each removal kept one within reach"
        )

    alive: Alive = {}
    for axis, pick in zip(supernet.axes, picks, strict=True):
        mask = masks.get(axis.name)
        if mask is None:
            continue
        row, column = mask.alive.nonzero()[pick].tolist()
        only = torch.zeros_like(mask.alive)
        only[row, column] = True
        alive[axis.name] = only
    return alive


def _remove_in_turn(
    supernet: Supernet,
    candidates: Sequence[Candidate],
    cost: AnyCost,
    window: Window,
) -> Alive:
    """What is left when candidates are removed in turn, except those without which nothing fits.

    An option that has to stay does so for good, as removing more cannot bring the window nearer.
    So the longest run that can be removed is found by bisection, which asks far less often
    whether the window is in reach.
    """
    alive = {name: mask.alive.clone() for name, mask in supernet.masked().items()}

    def in_reach(removed: Sequence[Candidate]) -> bool:
        sizes = sizes_alive(supernet, _without(alive, removed))
        return reachable(cost, sizes, window)

    while candidates:
        count = longest_prefix(candidates, in_reach)
        alive = _without(alive, candidates[:count])
        candidates = candidates[count + 1 :]  # the one after the run has to stay
    return alive


def _without(alive: Alive, removed: Sequence[Candidate]) -> Alive:
    """The options alive after some are removed, in new tables."""
    remaining = {name: table.clone() for name, table in alive.items()}
    for candidate in removed:
        remaining[candidate.axis][candidate.row, candidate.column] = False
    return remaining


def longest_prefix(
    items: Sequence[Item],
    holds: Callable[[Sequence[Item]], bool],
) -> int:
    """Length of the longest prefix for which `holds`, which once false stays false.

    >>> longest_prefix([1, 2, 3, 4], lambda prefix: sum(prefix) <= 6)
    3
    """
    if holds(items):
        return len(items)
    good = 0
    bad = len(items)
    while bad - good > 1:
        middle = (good + bad) // 2
        if holds(items[:middle]):
            good = middle
        else:
            bad = middle
    return good

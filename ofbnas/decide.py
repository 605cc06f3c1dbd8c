"""Which options die on a beat, and which are taken in the end, both with the budget kept in reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ofbnas.budget import Floats, Ints, Window, choose, reachable
from ofbnas.cost import Cost
from ofbnas.supernet import Supernet

Alive = dict[str, Tensor]
Dying = tuple[float, str, int, int]


def sizes_alive(supernet: Supernet, alive: Mapping[str, Tensor] | None = None) -> list[Ints]:
    """For each axis the sizes of its options alive, for `budget`.

    Args:
        supernet: Its masks give the options; an axis without a mask has its own size only.
        alive: Options alive, instead of the masks'.
    """
    masks, sizes = supernet.masked(), []
    for axis in supernet.axes:
        if axis.name in masks:
            mask = masks[axis.name]
            left = mask.alive if alive is None else alive[axis.name]
            groups = mask.groups[left]
            sizes.append(torch.stack([groups, mask.widths[left] / groups], dim=1).long().cpu().numpy())
        else:
            sizes.append(np.array([axis.size]))
    return sizes


def survivors(supernet: Supernet, cost: Cost, window: Window, threshold: float) -> Alive:
    """The options that survive a beat, for each mask.

    An option dies when its probability is at most `threshold` over the number of options left; the least probable
    first, and only while some architecture of the options left still lies in the window. Once every axis has a
    single probable option, only the budget can keep others alive, so the rest is decided together.
    """
    alive = {name: mask.alive.clone() for name, mask in supernet.masked().items()}
    dying: list[Dying] = []
    single = True
    for name, mask in supernet.masked().items():
        if mask.decided:
            continue
        p = mask.probabilities().detach()
        improbable = mask.alive & (p <= threshold / mask.num_alive) & (p < p.max())
        single &= int(improbable.sum()) == mask.num_alive - 1
        dying += [(float(p[i, j]), name, i, j) for i, j in improbable.nonzero().tolist()]
    if single:
        return best_choice(supernet, cost, window)
    dying.sort()

    def in_reach(some: Sequence[Dying]) -> bool:
        return reachable(cost, sizes_alive(supernet, _without(alive, some)), window)

    while dying:
        count = _longest_prefix(dying, in_reach)
        alive = _without(alive, dying[:count])
        dying = dying[count + 1 :]
    return alive


def best_choice(supernet: Supernet, cost: Cost, window: Window) -> Alive:
    """One option per mask: together the most probable architecture in the window."""
    masks = supernet.masked()
    scores: list[Floats] = []
    for axis in supernet.axes:
        if axis.name in masks:
            p = masks[axis.name].probabilities().detach().double()[masks[axis.name].alive]
            scores.append(p.clamp(min=1e-300).log().cpu().numpy())
        else:
            scores.append(np.zeros(1))
    picks = choose(cost, sizes_alive(supernet), scores, window)
    if picks is None:
        raise RuntimeError(f"no architecture of the options left lies in {window}, though each death kept one in reach")
    alive = {}
    for axis, pick in zip(supernet.axes, picks, strict=True):
        if axis.name in masks:
            mask = masks[axis.name]
            alive[axis.name] = torch.zeros_like(mask.alive)
            alive[axis.name][tuple(mask.alive.nonzero()[pick].tolist())] = True
    return alive


def _without(alive: Alive, dying: Sequence[Dying]) -> Alive:
    left = {name: table.clone() for name, table in alive.items()}
    for _, name, i, j in dying:
        left[name][i, j] = False
    return left


def _longest_prefix(items: Sequence[Dying], holds: Callable[[Sequence[Dying]], bool]) -> int:
    """Length of the longest prefix for which `holds`, which once false stays false."""
    if holds(items):
        return len(items)
    low, high = 0, len(items)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(items[:middle]) else (low, middle)
    return low

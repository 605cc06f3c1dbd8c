"""The budget as a promise: which options may still be taken, and the best choice inside the budget."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ofbnas.axes import Axis
from ofbnas.cost import Cost
from ofbnas.errors import InputError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# Beyond this many distinct costs, partial choices of nearly equal cost compete with each other.
MAX_STATES = 4000


@dataclass(frozen=True)
class Window:
    """The costs a budget allows, both ends included."""

    floor: int
    limit: int


def option_sizes(axes: Sequence[Axis]) -> list[Ints]:
    """For each axis the sizes of all its options, [options, 2]."""
    return [np.array(list(product(*axis.options)), dtype=np.int64) for axis in axes]


def choose(cost: Cost, sizes: Sequence[Ints], scores: Sequence[Floats], window: Window) -> list[int] | None:
    """The choice of one option per axis with the highest total score whose cost lies in the window.

    A multiple-choice knapsack, solved exactly: axes whose widths meet those of others (the embedding) are
    enumerated from the most promising combination on, until no other can win; for each the rest is separable and
    solved by dynamic programming over costs. Only with more than `MAX_STATES` distinct partial costs are nearly
    equal ones merged, keeping the better: then the choice is still inside the window, and near the best.

    Args:
        cost: The cost of sizes.
        sizes: For each axis the (groups, channels) of each of its options, [options, 2].
        scores: For each axis the score of each of its options, finite.
        window: Allowed costs.

    Returns:
        An option's index for each axis; None if no choice lies in the window.
    """
    best, best_score = None, -np.inf
    for bound, joint, rest, base, rates in _by_promise(cost, sizes, scores):
        if bound <= best_score:
            break
        costs = [rates[a] * sizes[a].prod(1) + cost.grouped[a] * sizes[a][:, 0] for a in rest]
        found = _separable(base, costs, [scores[a] for a in rest], window)
        if found is None:
            continue
        picks = joint | dict(zip(rest, found, strict=True))
        score = sum(float(scores[a][pick]) for a, pick in picks.items())
        if score > best_score:
            best, best_score = picks, score
    if best is None and any(score.any() for score in scores):
        return choose(cost, sizes, [np.zeros(len(options)) for options in sizes], window)
    return None if best is None else [best[a] for a in range(len(sizes))]


def reachable(cost: Cost, sizes: Sequence[Ints], window: Window) -> bool:
    """Whether some choice of one option per axis costs what the window allows."""
    return choose(cost, sizes, [np.zeros(len(options)) for options in sizes], window) is not None


def window_below(cost: Cost, sizes: Sequence[Ints], limit: int, tolerance: float) -> Window:
    """The window [(1 - tolerance) limit, limit], lowered to the highest cost below the limit if it holds none.

    Raises:
        InputError: Even the smallest architecture is above the limit.
    """
    least = cost.of([tuple(options.min(0)) for options in sizes])
    most = cost.of([tuple(options.max(0)) for options in sizes])
    if not reachable(cost, sizes, Window(least, limit)):
        raise InputError(f"budget {limit:,} is out of reach: this search space reaches from {least:,} to {most:,}")
    floor = math.ceil(limit * (1 - tolerance))
    if reachable(cost, sizes, Window(floor, limit)):
        return Window(floor, limit)
    low, high = least, floor  # a window from low is reachable, one from high is not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if reachable(cost, sizes, Window(middle, limit)) else (low, middle)
    return Window(low, limit)


def _by_promise(
    cost: Cost, sizes: Sequence[Ints], scores: Sequence[Floats]
) -> Iterator[tuple[float, dict[int, int], list[int], int, Ints]]:
    """Combinations of the axes that couple others, the highest attainable score first.

    Yields:
        The bound on the score, the coupling axes' picks, the other axes, the cost of the picks alone, and the other
        axes' cost per unit given the picks, [axes].
    """
    symmetric = cost.quadratic + cost.quadratic.T
    coupling: list[int] = []
    open_pairs = symmetric != 0
    while open_pairs.any():
        axis = int(open_pairs.sum(1).argmax())
        coupling.append(axis)
        open_pairs[axis, :] = open_pairs[:, axis] = False
    rest = [axis for axis in range(len(sizes)) if axis not in coupling]
    others = sum(float(scores[axis].max()) for axis in rest)
    combinations = list(product(*(range(len(sizes[axis])) for axis in coupling)))
    bounds = [others + sum(float(scores[a][p]) for a, p in zip(coupling, c, strict=True)) for c in combinations]
    for index in np.argsort(-np.array(bounds), kind="stable"):
        joint = dict(zip(coupling, combinations[index], strict=True))
        picked = np.zeros((len(sizes), 2), dtype=np.int64)
        for axis, pick in joint.items():
            picked[axis] = sizes[axis][pick]
        yield bounds[index], joint, rest, cost.of(picked), cost.linear + symmetric @ picked.prod(1)


def _separable(base: int, costs: list[Ints], scores: list[Floats], window: Window) -> list[int] | None:
    """The best picks when each axis adds its own cost to `base`."""
    least, most = sum(int(c.min()) for c in costs), sum(int(c.max()) for c in costs)
    totals, values = np.array([base], dtype=np.int64), np.zeros(1)
    trail: list[tuple[Ints, Ints]] = []
    for cost, score in zip(costs, scores, strict=True):
        least, most = least - int(cost.min()), most - int(cost.max())
        total, value = (totals[:, None] + cost).ravel(), (values[:, None] + score).ravel()
        can = np.flatnonzero((total + least <= window.limit) & (total + most >= window.floor))
        kept = can[_best_of_equal(total[can], value[can], window)]
        if not len(kept):
            return None
        trail.append(np.divmod(kept, len(cost)))
        totals, values = total[kept], value[kept]
    if not costs and not window.floor <= base <= window.limit:
        return None
    state, picks = int(values.argmax()), []
    for parents, choices in reversed(trail):
        picks.append(int(choices[state]))
        state = int(parents[state])
    return picks[::-1]


def _best_of_equal(total: Ints, value: Floats, window: Window) -> Ints:
    """Indices of the highest value for each distinct total, or for each of `MAX_STATES` steps of it."""
    order = np.lexsort((-value, total))
    ordered = total[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(order) else order
    if len(first) <= MAX_STATES:
        return order[first]
    step = total // max(1, (int(total.max()) - int(total.min())) // MAX_STATES)
    order = np.lexsort((-value, step))
    ordered = step[order]
    return order[np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])]

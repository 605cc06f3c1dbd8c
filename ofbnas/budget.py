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
# The same for each option of an axis in a chain of axes that meet.
MAX_STATES_IN_CHAIN = 1000
# Up to this many combinations of axes that meet others are gone through one by one.
MAX_COMBINATIONS = 1000


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
    solved by dynamic programming over costs. Where many such axes meet in a chain (the embeddings of stages), the
    programming goes along the chain instead. Only with more than `MAX_STATES` distinct partial costs (in a chain,
    `MAX_STATES_IN_CHAIN` for each option) are nearly equal ones merged, keeping the better: then the choice is still
    inside the window, and near the best.

    Args:
        cost: The cost of sizes.
        sizes: For each axis the (groups, channels) of each of its options, [options, 2].
        scores: For each axis the score of each of its options, finite.
        window: Allowed costs.

    Returns:
        An option's index for each axis; None if no choice lies in the window.
    """
    equal = [np.zeros(len(options)) for options in sizes]
    for tried in (scores, equal) if any(score.any() for score in scores) else (equal,):
        if (picks := _chosen(cost, sizes, tried, window)) is not None:
            return picks
    return _filled(cost, sizes, window)  # where merging lost the little that lies in the window


def reachable(cost: Cost, sizes: Sequence[Ints], window: Window) -> bool:
    """Whether some choice of one option per axis costs what the window allows."""
    if _filled(cost, sizes, window) is not None:
        return True
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


def _filled(cost: Cost, sizes: Sequence[Ints], window: Window) -> list[int] | None:
    """The picks of widening one axis after the other as far as the limit allows, if that ends in the window."""
    orders = [np.argsort(options.prod(1), kind="stable") for options in sizes]
    picks = [int(order[0]) for order in orders]
    picked = np.array([options[pick] for options, pick in zip(sizes, picks, strict=True)])
    for axis, (options, order) in enumerate(zip(sizes, orders, strict=True)):
        low, high = 0, len(order)  # the widest option that fits, by halving: costs grow with the width
        while high - low > 1:
            middle = (low + high) // 2
            picked[axis] = options[order[middle]]
            low, high = (middle, high) if cost.of(picked) <= window.limit else (low, middle)
        picks[axis] = int(order[low])
        picked[axis] = options[picks[axis]]
    return picks if window.floor <= cost.of(picked) <= window.limit else None


def _chosen(cost: Cost, sizes: Sequence[Ints], scores: Sequence[Floats], window: Window) -> list[int] | None:
    """The choice of `choose`, by the way that suits how axes meet."""
    symmetric = cost.quadratic + cost.quadratic.T
    coupling = _coupling(symmetric)
    chain = _chain(symmetric, coupling) if math.prod(len(sizes[a]) for a in coupling) > MAX_COMBINATIONS else None
    if chain is not None:
        return _along(chain, cost, sizes, scores, window)
    best, best_score = None, -np.inf
    for bound, joint, rest, base, rates in _by_promise(cost, coupling, sizes, scores):
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
    return None if best is None else [best[a] for a in range(len(sizes))]


def _coupling(symmetric: Ints) -> list[int]:
    """Axes without which no two axes would meet, those that meet most others first."""
    coupling: list[int] = []
    open_pairs = symmetric != 0
    while open_pairs.any():
        axis = int(open_pairs.sum(1).argmax())
        coupling.append(axis)
        open_pairs[axis, :] = open_pairs[:, axis] = False
    return coupling


def _chain(symmetric: Ints, coupling: list[int]) -> list[int] | None:
    """The coupling axes in an order in which each meets its neighbours only, if each other axis meets just one."""
    meets = {axis: [other for other in coupling if other != axis and symmetric[axis, other]] for axis in coupling}
    rest = [axis for axis in range(len(symmetric)) if axis not in coupling]
    ends = [axis for axis in coupling if len(meets[axis]) == 1]
    if len(ends) != 2 or any(len(others) > 2 for others in meets.values()):
        return None
    if any(symmetric[axis, axis] for axis in rest) or any((symmetric[axis, coupling] != 0).sum() > 1 for axis in rest):
        return None
    chain = [min(ends)]
    while following := [axis for axis in meets[chain[-1]] if axis not in chain]:
        chain.append(following[0])
    return chain if len(chain) == len(coupling) else None


def _along(
    chain: list[int], cost: Cost, sizes: Sequence[Ints], scores: Sequence[Floats], window: Window
) -> list[int] | None:
    """The best picks by dynamic programming along a chain of axes that meet; a state is a cost and the last option."""
    symmetric = cost.quadratic + cost.quadratic.T
    widths = [options.prod(1) for options in sizes]
    own = [
        cost.linear[a] * w + cost.quadratic[a, a] * w**2 + cost.grouped[a] * sizes[a][:, 0]
        for a, w in enumerate(widths)
    ]
    ahead = sum(int(costs.min()) for costs in own)  # what the axes still to come cost at least
    rest = [axis for axis in range(len(sizes)) if axis not in chain]
    totals, values, last = np.array([cost.constant], dtype=np.int64), np.zeros(1), np.zeros(1, dtype=np.int64)
    trail: list[tuple[int, Ints, Ints]] = []
    for axis, before in zip(chain, [chain[0], *chain], strict=False):
        alone = [a for a in rest if not symmetric[a, chain].any()] if axis == chain[-1] else []
        for added in (axis, *(a for a in rest if symmetric[a, axis]), *alone):
            neighbour = before if added == axis else axis
            met = symmetric[neighbour, added] * np.outer(widths[neighbour][last], widths[added])
            total = totals[:, None] + own[added] + (0 if neighbour == added else met)
            value = values[:, None] + scores[added]
            state = np.arange(len(own[axis])) if added == axis else last[:, None]
            ahead -= int(own[added].min())
            can = np.flatnonzero(total <= window.limit - ahead)
            state = np.broadcast_to(state, total.shape).ravel()
            kept = can[_best_in_each(state[can], total.ravel()[can], value.ravel()[can])]
            if not len(kept):
                return None
            trail.append((added, *np.divmod(kept, len(own[added]))))
            totals, values, last = total.ravel()[kept], value.ravel()[kept], state[kept]
    inside = np.flatnonzero(totals >= window.floor)
    if not len(inside):
        return None
    at, found = int(inside[values[inside].argmax()]), {}
    for added, parents, picks in reversed(trail):
        found[added] = int(picks[at])
        at = int(parents[at])
    return [found[axis] for axis in range(len(sizes))]


def _best_in_each(state: Ints, total: Ints, value: Floats) -> Ints:
    """Indices of the highest value for each state and total, or each of `MAX_STATES_IN_CHAIN` steps of the total."""
    if not len(total):
        return np.zeros(0, dtype=np.int64)
    span = int(total.max() - total.min())
    if len(total) > MAX_STATES_IN_CHAIN:
        total = total // max(1, span // MAX_STATES_IN_CHAIN)
    order = np.lexsort((-value, total, state))
    changes = (np.diff(total[order]) != 0) | (np.diff(state[order]) != 0)
    return order[np.flatnonzero(np.r_[True, changes])]


def _by_promise(
    cost: Cost, coupling: list[int], sizes: Sequence[Ints], scores: Sequence[Floats]
) -> Iterator[tuple[float, dict[int, int], list[int], int, Ints]]:
    """Combinations of the axes that couple others, the highest attainable score first.

    Yields:
        The bound on the score, the coupling axes' picks, the other axes, the cost of the picks alone, and the other
        axes' cost per unit given the picks, [axes].
    """
    symmetric = cost.quadratic + cost.quadratic.T
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
        kept = can[_best_of_equal(total[can], value[can])]
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


def _best_of_equal(total: Ints, value: Floats) -> Ints:
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

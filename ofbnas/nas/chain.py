"""The knapsack where the axes that meet form a chain, as the embeddings of stages do.

Along a chain, the cost of an axis depends on one axis before it only. So a state of the dynamic
program is a cost so far and an option of the chain's last axis.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ofbnas.models.cost import Branches, Cost
from ofbnas.nas.dynamic import Floats, Ints, States, Window, in_steps, may_go

# Beyond this many distinct costs for each option of the chain's last axis, partial choices of
# nearly equal cost compete with each other.
MAX_STATES_IN_CHAIN = 1000


def chain_order(symmetric: Ints, coupling: list[int]) -> list[int] | None:
    """The coupling axes in an order in which each meets only its neighbours, or None.

    None unless they form such a chain, and each other axis meets at most one of them and not
    itself.

    Args:
        symmetric: Cost per pair of units, [axes, axes]; axes meet where it is not 0.
        coupling: The axes without which no two axes would meet.
    """
    neighbours: dict[int, list[int]] = {}
    for axis in coupling:
        met = []
        for other in coupling:
            if other != axis and symmetric[axis, other]:
                met.append(other)
        if len(met) > 2:
            return None  # it branches
        neighbours[axis] = met
    ends = [axis for axis in coupling if len(neighbours[axis]) == 1]
    if len(ends) != 2:
        return None

    for axis in range(len(symmetric)):
        if axis in coupling:
            continue
        num_met = np.count_nonzero(symmetric[axis, coupling])
        if symmetric[axis, axis] or num_met > 1:
            return None

    chain: list[int] = []
    following = [min(ends)]
    while following:
        chain.append(following[0])
        following = [axis for axis in neighbours[chain[-1]] if axis not in chain]
    if len(chain) < len(coupling):
        return None  # there is a ring beside the chain, which has no ends
    return chain


def best_along_chain(
    chain: list[int],
    cost: Cost,
    sizes: Sequence[Ints],
    scores: Sequence[Floats],
    window: Window,
) -> list[int] | None:
    """The best picks by dynamic programming along a chain of axes that meet.

    Args:
        chain: The axes that meet, as `chain_order` gives them.
        cost: The cost of sizes.
        sizes: For each axis the (groups, channels) of each of its options, [options, 2].
        scores: For each axis the score of each of its options.
        window: Allowed costs.

    Returns:
        An option's index for each axis; None if no choice lies in the window, or merging lost all
        that do.
    """
    symmetric = cost.quadratic + cost.quadratic.T
    bare, branches = cost.split(may_go(sizes))
    widths = [options.prod(1) for options in sizes]
    own_costs = _own_costs(bare, branches, sizes)
    least_to_come = sum(int(costs.min()) for costs in own_costs)

    states = States(bare.constant)
    last = np.zeros(1, dtype=np.int64)  # for each state the option of the chain's last axis
    for axis, neighbour in _order_of_addition(chain, symmetric):
        total = np.add.outer(states.totals, own_costs[axis])  # [states, options]
        if neighbour is not None:
            last_width = widths[neighbour][last]
            pairs = np.outer(last_width, widths[axis])
            total = total + symmetric[neighbour, axis] * pairs
            branch = np.outer(last_width, widths[axis] > 0)
            total = total + branches.linear[axis, neighbour] * branch
        value = np.add.outer(states.values, scores[axis])
        if axis in chain:
            options = np.arange(len(widths[axis]))
            new_last = np.broadcast_to(options, total.shape)
        else:
            new_last = np.broadcast_to(last[:, None], total.shape)

        # One entry for each state and option, which becomes a state if it is the best of its kind.
        new_last = new_last.ravel()
        total = total.ravel()
        value = value.ravel()

        # The floor is checked only at the end: pairs to come add to the cost, so it may still be
        # reached.
        least_to_come -= int(own_costs[axis].min())
        fits = np.flatnonzero(total <= window.limit - least_to_come)
        best = _best_of_each(new_last[fits], total[fits], value[fits])
        kept = fits[best]
        if not len(kept):
            return None
        states.advance_(axis, total, value, kept)
        last = new_last[kept]

    inside = np.flatnonzero(states.totals >= window.floor)
    if not len(inside):
        return None
    best_inside = states.values[inside].argmax()
    return states.picks_of(int(inside[best_inside]))


def _own_costs(cost: Cost, branches: Branches, sizes: Sequence[Ints]) -> list[Ints]:
    """For each axis the cost of each of its options, without the pairs with other axes.

    An axis may meet itself, so its width counts squared, too.
    """
    own_costs = []
    for axis, options in enumerate(sizes):
        groups = options[:, 0]
        width = options.prod(1)
        linear = cost.linear[axis] * width
        squared = cost.quadratic[axis, axis] * width**2
        grouped = cost.grouped[axis] * groups
        branch = branches.constant[axis] * (width > 0)
        own_costs.append(linear + squared + grouped + branch)
    return own_costs


def _order_of_addition(
    chain: list[int],
    symmetric: Ints,
) -> Iterator[tuple[int, int | None]]:
    """The axes along a chain: each axis of it, then those that meet it; last those that meet none.

    Yields:
        An axis, and the axis added before that it may meet, which is the last of the chain so far.
    """
    rest = [axis for axis in range(len(symmetric)) if axis not in chain]
    previous = None
    for link in chain:
        yield link, previous
        for axis in rest:
            if symmetric[axis, link]:
                yield axis, link
        previous = link

    for axis in rest:
        if not symmetric[axis, chain].any():
            yield axis, None


def _best_of_each(last: Ints, total: Ints, value: Floats) -> Ints:
    """Indices of the highest value for each last option and total.

    If there are more than `MAX_STATES_IN_CHAIN` entries, totals in the same of that many steps
    count as equal.
    """
    if not len(total):
        return np.zeros(0, dtype=np.int64)
    if len(total) > MAX_STATES_IN_CHAIN:
        total = in_steps(total, MAX_STATES_IN_CHAIN)
    order = np.lexsort((-value, total, last))  # by last, then total, then the highest value first
    new_total = np.diff(total[order]) != 0
    new_last = np.diff(last[order]) != 0
    firsts = np.flatnonzero(np.r_[True, new_total | new_last])
    return order[firsts]

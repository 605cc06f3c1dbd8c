"""The best choice of one option per axis whose cost lies in a window, as a knapsack.

It is an exact multiple-choice knapsack. With a score for each option, it is the solution of

    maximize    sum over axes a of scores[a][pick a]
    subject to  floor <= C(w, g) <= limit,
    C(w, g) = constant + linear @ w + grouped @ g + w @ quadratic @ w,

where w and g are the widths and numbers of groups of the options picked. Were C linear, each axis
would add its own cost, and dynamic programming over costs would do. It is not: axes meet in the
quadratic part, in a ViT each with the embedding. So the few axes that meet others are either
enumerated or, if they form a chain, programmed along it. A time of a plain ViT is no quadratic form,
but given the embedding it is a sum over axes, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from ofbnas.models.axes import Size
from ofbnas.models.cost import Cost
from ofbnas.models.time_cost import TimeCost
from ofbnas.nas.chain import best_along_chain, chain_order
from ofbnas.nas.dynamic import Floats, Ints, Window, best_separable, may_go

AnyCost = Cost | TimeCost

# Up to this many combinations of coupling axes are enumerated.
MAX_COMBINATIONS = 1000


class _Combination(NamedTuple):
    """One option for each coupling axis.

    Attributes:
        bound: No choice with these options scores more.
        picks: Coupling axis to the index of its option.
    """

    bound: float
    picks: dict[int, int]


def best_picks(
    cost: AnyCost,
    sizes: Sequence[Ints],
    scores: Sequence[Floats],
    window: Window,
) -> list[int] | None:
    """The option of each axis in the best choice that lies in the window; see `budget.choose`.

    None if there is none, or if merging states lost it.
    """
    symmetric = cost.meeting()
    coupling = coupling_axes(symmetric)
    num_combinations = math.prod(len(sizes[axis]) for axis in coupling)
    if num_combinations > MAX_COMBINATIONS and isinstance(cost, Cost):
        chain = chain_order(symmetric, coupling)
        if chain is not None:
            return best_along_chain(chain, cost, sizes, scores, window)
    return _best_by_enumeration(coupling, cost, sizes, scores, window)


def coupling_axes(symmetric: Ints) -> list[int]:
    """Axes without which no two axes would meet, those that meet most others first.

    Args:
        symmetric: Cost per pair of units, [axes, axes]; axes meet where it is not 0.

    >>> coupling_axes(np.array([[0, 3, 5], [3, 0, 0], [5, 0, 0]]))
    [0]
    """
    coupling: list[int] = []
    open_pairs = symmetric != 0
    while open_pairs.any():
        axis = int(open_pairs.sum(1).argmax())
        coupling.append(axis)
        open_pairs[axis, :] = False
        open_pairs[:, axis] = False
    return coupling


def _best_by_enumeration(
    coupling: list[int],
    cost: AnyCost,
    sizes: Sequence[Ints],
    scores: Sequence[Floats],
    window: Window,
) -> list[int] | None:
    """The best picks by enumerating the coupling axes' options, the most promising ones first."""
    rest = [axis for axis in range(len(sizes)) if axis not in coupling]
    rest_scores = [scores[axis] for axis in rest]
    best: dict[int, int] | None = None
    best_score = -np.inf
    for combination in _by_promise(coupling, rest, scores):
        if combination.bound <= best_score:
            break  # so are the bounds of all that follow

        fixed = {}
        for axis, pick in combination.picks.items():
            groups, channels = sizes[axis][pick].tolist()
            fixed[axis] = (groups, channels)
        if isinstance(cost, TimeCost):
            base, costs = cost.given(fixed, sizes, rest)
        else:
            base, costs = _given(cost, fixed, sizes, rest)
        rest_picks = best_separable(base, costs, rest_scores, window)
        if rest_picks is None:
            continue

        picks = combination.picks | dict(zip(rest, rest_picks, strict=True))
        score = _score_of(picks, scores)
        if score > best_score:
            best = picks
            best_score = score
    if best is None:
        return None
    return [best[axis] for axis in range(len(sizes))]


def _given(
    cost: Cost,
    fixed: Mapping[int, Size],
    sizes: Sequence[Ints],
    rest: Sequence[int],
) -> tuple[int, list[Ints]]:
    """What the coupling axes cost at fixed sizes, and what each option of the others adds.

    What is left of the cost is linear then: each other axis a adds
    (linear[a] + symmetric[a] @ fixed widths) w[a] + grouped[a] g[a], and its branch if it has units.
    """
    pairs = np.zeros((len(sizes), 2), dtype=np.int64)
    for axis, size in fixed.items():
        pairs[axis] = size
    widths = pairs.prod(1)
    has_units = widths > 0
    bare, branches = cost.split(may_go(sizes))
    cost_per_unit = bare.linear + cost.meeting() @ widths + has_units @ branches.linear
    cost_of_branch = branches.at(widths)
    base = bare.of(pairs) + int(cost_of_branch[has_units].sum())
    costs: list[Ints] = []
    for axis in rest:
        groups = sizes[axis][:, 0]
        width = sizes[axis].prod(1)
        own = cost_per_unit[axis] * width + cost.grouped[axis] * groups
        costs.append(own + cost_of_branch[axis] * (width > 0))
    return base, costs


def _by_promise(
    coupling: list[int],
    rest: list[int],
    scores: Sequence[Floats],
) -> Iterator[_Combination]:
    """Combinations of the coupling axes' options, the highest attainable score first."""
    most_of_rest = sum(float(scores[axis].max()) for axis in rest)
    indices = [range(len(scores[axis])) for axis in coupling]
    combinations: list[_Combination] = []
    for options in product(*indices):
        picks = dict(zip(coupling, options, strict=True))
        bound = most_of_rest + _score_of(picks, scores)
        combinations.append(_Combination(bound, picks))
    # The sort is stable: equal bounds stay in the order of options.
    yield from sorted(combinations, key=lambda combination: -combination.bound)


def _score_of(picks: Mapping[int, int], scores: Sequence[Floats]) -> float:
    """The total score of the options of some axes."""
    picked = [float(scores[axis][pick]) for axis, pick in picks.items()]
    return sum(picked)

"""Sizes by a rule: every axis at its share of the parent's units, as wide as a budget allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ofbnas.models.axes import Axis, Size
from ofbnas.nas.budget import Budget, option_sizes
from ofbnas.nas.dynamic import Ints

SCALES = np.linspace(0.01, 1, 397)  # of the widest shares that are looked at


def proportional(axes: Sequence[Axis], budget: Budget, shares: Sequence[float]) -> list[Size]:
    """The axes at given shares of the parent's widths, all multiplied by the same number.

    Args:
        axes: Of the parent.
        budget: What the sizes may cost.
        shares: For each axis, above 0; only their quotients matter.
    """
    highest = max(shares)
    return widest(lambda scale: [scale * share / highest for share in shares], axes, budget)


def widest(
    shares_at: Callable[[float], list[float]], axes: Sequence[Axis], budget: Budget
) -> list[Size]:
    """The most expensive sizes within the budget among those that a single number gives.

    Args:
        shares_at: For a number of 0 to 1, the share of its units that each axis keeps.
        axes: Of the parent.
        budget: What the sizes may cost.
    """
    options = option_sizes(axes)
    best: list[Size] = [_smallest(choices) for choices in options]
    highest = -1
    for scale in SCALES:
        sizes = [
            _nearest(choices, share * axis.units)
            for axis, choices, share in zip(axes, options, shares_at(float(scale)), strict=True)
        ]
        cost = budget.cost.of(sizes)
        if highest < cost <= budget.window.limit:
            highest = cost
            best = sizes
    return _filled(best, options, budget)


def _filled(sizes: list[Size], options: Sequence[Ints], budget: Budget) -> list[Size]:
    """The sizes with what a coarse grid has left of the budget given to one branch after another.

    Otherwise a rule would lose by the grid, not by being a rule.
    """
    filled = list(sizes)
    for index in range(len(filled) - 1, 0, -1):
        groups, channels = filled[index]
        wider = options[index]
        wider = wider[(wider[:, 0] == groups) & (wider[:, 1] > channels)]
        for size in map(tuple, wider[:1].tolist()):
            tried = [*filled[:index], size, *filled[index + 1 :]]
            if budget.cost.of(tried) <= budget.window.limit:
                filled = tried
    return filled


def _nearest(choices: Ints, units: float) -> Size:
    """The option whose number of units is nearest, with as many groups as possible."""
    distances = np.abs(choices.prod(1) - units)
    nearest = choices[distances == distances.min()]
    groups, channels = nearest[nearest[:, 0].argmax()].tolist()
    return groups, channels


def _smallest(choices: Ints) -> Size:
    """The option with the fewest units."""
    groups, channels = choices[choices.prod(1).argmin()].tolist()
    return groups, channels

"""Dynamic programming over costs: partial choices, each with what it costs and what it scores.

A state stands for all partial choices that cost the same, and keeps the best of them. Each step
adds an axis: every state is combined with every option of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# Beyond this many distinct costs, partial choices of nearly equal cost compete with each other.
MAX_STATES = 4000


def may_go(sizes: Sequence[Ints]) -> NDArray[np.bool_]:
    """Which axes have an option without units, [axes].

    Args:
        sizes: For each axis the (groups, channels) of each of its options, [options, 2].
    """
    return np.array([not options.all() for options in sizes])


@dataclass(frozen=True)
class Window:
    """The costs a budget allows, both ends included."""

    floor: int
    limit: int

    def __contains__(self, cost: int) -> bool:
        """Whether the budget allows a cost.

        >>> 50 in Window(40, 50), 51 in Window(40, 50)
        (True, False)
        """
        return self.floor <= cost <= self.limit


class Step(NamedTuple):
    """One step of a dynamic program.

    Attributes:
        axis: The axis that was added.
        parents: For each state after the step, the state before it, [states].
        picks: For each state after the step, the option of the axis, [states].
    """

    axis: int
    parents: Ints
    picks: Ints


class States:
    """The states of a dynamic program, and the steps that led to them.

    Attributes:
        totals: The cost so far of each state, [states].
        values: The score so far of each state, [states].
        steps: The steps so far.
    """

    def __init__(self, base: int) -> None:
        """Begin with one state: no axis is added yet, and the cost is `base`."""
        self.totals = np.array([base], dtype=np.int64)
        self.values = np.zeros(1)
        self.steps: list[Step] = []

    def advance_(
        self,
        axis: int,
        total: Ints,
        value: Floats,
        kept: Ints,
    ) -> None:
        """Go on to the states that the options of an axis make.

        Args:
            axis: The axis to add.
            total: The cost of each state with each option, [states x options].
            value: The score of the same, [states x options].
            kept: Indices of those that become states.
        """
        num_options = len(total) // len(self.totals)
        parents, picks = np.divmod(kept, num_options)
        self.steps.append(Step(axis, parents, picks))
        self.totals = total[kept]
        self.values = value[kept]

    def picks_of(self, state: int) -> list[int]:
        """The option of each axis, in the order of axes, that led to a state."""
        picks: dict[int, int] = {}
        for step in reversed(self.steps):
            picks[step.axis] = int(step.picks[state])
            state = int(step.parents[state])
        return [picks[axis] for axis in sorted(picks)]


def best_separable(
    base: int,
    costs: Sequence[Ints],
    scores: Sequence[Floats],
    window: Window,
) -> list[int] | None:
    """The best picks when each axis adds its own cost to `base`; None if none lies in the window.

    Args:
        base: Cost that no axis changes.
        costs: For each axis the cost of each of its options.
        scores: For each axis the score of each of its options.
        window: Allowed costs.
    """
    if not costs:
        return [] if base in window else None

    # What the axes still to be added will cost at least, and at most.
    least_to_come = sum(int(options.min()) for options in costs)
    most_to_come = sum(int(options.max()) for options in costs)

    states = States(base)
    for axis, cost in enumerate(costs):
        total = np.add.outer(states.totals, cost).ravel()  # [states x options]
        value = np.add.outer(states.values, scores[axis]).ravel()

        # A partial choice is dropped as soon as no completion of it can lie in the window.
        least_to_come -= int(cost.min())
        most_to_come -= int(cost.max())
        below_limit = total + least_to_come <= window.limit
        above_floor = total + most_to_come >= window.floor
        fits = np.flatnonzero(below_limit & above_floor)

        best = _best_of_equal(total[fits], value[fits])
        kept = fits[best]
        if not len(kept):
            return None
        states.advance_(axis, total, value, kept)
    return states.picks_of(int(states.values.argmax()))


def _best_of_equal(total: Ints, value: Floats) -> Ints:
    """Indices of the highest value for each total, or for each of `MAX_STATES` steps of it."""
    best = first_of_each(total, value)
    if len(best) <= MAX_STATES:
        return best
    return first_of_each(in_steps(total, MAX_STATES), value)


def in_steps(total: Ints, num_steps: int) -> Ints:
    """Costs as numbers of steps, of which there are about so many between the ends.

    >>> in_steps(np.array([100, 104, 119, 120]), num_steps=2).tolist()
    [10, 10, 11, 12]
    """
    span = int(total.max()) - int(total.min())
    width = max(1, span // num_steps)
    return total // width


def first_of_each(key: Ints, value: Floats) -> Ints:
    """Indices of the highest value for each key, in the order of keys.

    >>> first_of_each(np.array([7, 5, 7]), np.array([0.1, 0.3, 0.2])).tolist()
    [1, 2]
    """
    order = np.lexsort((-value, key))  # by key, then the highest value first
    if not len(order):
        return order
    changes = np.diff(key[order]) != 0
    firsts = np.flatnonzero(np.r_[True, changes])
    return order[firsts]

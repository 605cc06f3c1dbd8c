"""Whether a budget is within reach of the options left, and the best choice inside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from ofbnas.config import BudgetConfig, TimedOnConfig
from ofbnas.errors import InputError
from ofbnas.files.cache import cache_folder
from ofbnas.models.axes import Axis
from ofbnas.models.cost import Cost, Metric, cost_of, sizes_of
from ofbnas.models.time_cost import TimeCost
from ofbnas.nas.alike import best_alike, picked
from ofbnas.nas.dynamic import Floats, Ints, Window
from ofbnas.nas.knapsack import AnyCost, best_picks
from ofbnas.nas.timing import time_cost

RECORDED: tuple[Metric, ...] = ("macs", "params")  # costs of every network that is found
MAX_MEASURED = 6  # networks that are measured for one choice within a time


def option_sizes(axes: Sequence[Axis]) -> list[Ints]:
    """For each axis the sizes of all its options, [options, 2]."""
    sizes = []
    for axis in axes:
        sizes.append(np.array(axis.sizes(), dtype=np.int64))
    return sizes


def choose(
    cost: AnyCost,
    sizes: Sequence[Ints],
    scores: Sequence[Floats],
    window: Window,
) -> list[int] | None:
    """The choice of one option per axis with the highest total score whose cost lies in the window.

    A multiple-choice knapsack, solved exactly: axes whose widths meet those of others (the
    embedding) are enumerated from the most promising combination on, until no other can win; for
    each the rest is separable and solved by dynamic programming over costs. Where many such axes
    meet in a chain (the embeddings of stages), the programming goes along the chain instead. Only
    with more than `MAX_STATES` distinct partial costs (in a chain, `MAX_STATES_IN_CHAIN` for each
    option) are nearly equal ones merged, and the better one is kept: then the choice is still
    inside the window, and near the best. Networks whose blocks have to be alike are so few that all
    are looked at.

    Args:
        cost: The cost of sizes.
        sizes: For each axis the (groups, channels) of each of its options, [options, 2].
        scores: For each axis the score of each of its options, finite.
        window: Allowed costs.

    Returns:
        An option's index for each axis; None if no choice lies in the window.

    >>> cost = Cost(("mlp",), 0, np.array([10]), np.array([0]), np.array([[0]]))
    >>> sizes = [np.array([[1, 2], [1, 4], [1, 8]])]
    >>> choose(cost, sizes, [np.log([0.2, 0.1, 0.7])], Window(20, 50))
    [0]
    """
    if cost.alike:
        return best_alike(cost, sizes, scores, window)
    picks = best_picks(cost, sizes, scores, window)
    if picks is not None:
        return picks

    # Merging may have lost all choices in the window: it keeps the state of the highest score, and
    # another cost of the same step would have ended inside. Equal scores keep other states, and
    # widening does not merge.
    if any(score.any() for score in scores):
        picks = best_picks(cost, sizes, _equal_scores(sizes), window)
        if picks is not None:
            return picks
    return _widened(cost, sizes, window)


def choose_measured(
    cost: AnyCost,
    sizes: Sequence[Ints],
    scores: Sequence[Floats],
    window: Window,
) -> list[int] | None:
    """As `choose`, but where the cost is a time, the network chosen is measured.

    If it takes longer than the window allows, or less, the window of the prediction is moved by
    measured over predicted, and the choice is made again.

    Raises:
        InputError: No network that was chosen and measured is within the limit.
    """
    if not isinstance(cost, TimeCost):
        return choose(cost, sizes, scores, window)
    aim = window
    best: list[int] | None = None
    best_time = -1
    measured = 0
    for _ in range(MAX_MEASURED):
        picks = choose(cost, sizes, scores, aim)
        if picks is None:  # few options may be left: then any below the limit
            picks = choose(cost, sizes, scores, Window(0, aim.limit))
        if picks is None:
            break
        chosen = picked(sizes, picks)
        measured = cost.measured(chosen)
        if measured in window:
            return picks
        if best_time < measured <= window.limit:
            best = picks
            best_time = measured
        ratio = measured / cost.of(chosen)
        aim = Window(math.ceil(window.floor / ratio), math.floor(window.limit / ratio))
    if best is None:
        raise InputError(
            f"no network of the options left takes at most {cost_text(cost, window.limit)}; the "
            f"last one measured takes {cost_text(cost, measured)}: give a higher budget, or let "
            "other work on this machine end"
        )
    return best


def cost_text(cost: AnyCost, value: int) -> str:
    """A cost for people: a time in milliseconds, anything else as a whole number."""
    return f"{value / 1e6:.4g} ms" if isinstance(cost, TimeCost) else f"{value:,}"


def reachable(
    cost: AnyCost,
    sizes: Sequence[Ints],
    window: Window,
) -> bool:
    """Whether some choice of one option per axis costs what the window allows."""
    # Widening is much faster, and mostly enough.
    if not cost.alike and _widened(cost, sizes, window) is not None:
        return True
    return choose(cost, sizes, _equal_scores(sizes), window) is not None


def window_below(
    cost: AnyCost,
    sizes: Sequence[Ints],
    limit: int,
    tolerance: float,
) -> Window:
    """The window [(1 - tolerance) limit, limit], lowered if no architecture lies in it.

    Its floor is then the highest cost up to the limit.

    Raises:
        InputError: Even the smallest architecture is above the limit.

    An MLP of 2, 4 or 8 units that cost 10 each has 40 as its highest cost below 50:

    >>> cost = Cost(("mlp",), 0, np.array([10]), np.array([0]), np.array([[0]]))
    >>> sizes = [np.array([[1, 2], [1, 4], [1, 8]])]
    >>> window_below(cost, sizes, limit=50, tolerance=0.25)
    Window(floor=38, limit=50)
    >>> window_below(cost, sizes, limit=50, tolerance=0.1)
    Window(floor=40, limit=50)
    """
    smallest = np.array([options.min(0) for options in sizes])
    largest = np.array([options.max(0) for options in sizes])
    least = cost.of(smallest)
    most = cost.of(largest)
    if not reachable(cost, sizes, Window(least, limit)):
        raise InputError(
            f"budget {cost_text(cost, limit)} is out of reach: this search space reaches from "
            f"{cost_text(cost, least)} to {cost_text(cost, most)}"
        )
    floor = math.ceil(limit * (1 - tolerance))
    if reachable(cost, sizes, Window(floor, limit)):
        return Window(floor, limit)

    # Bisection: a window from `reached` holds a choice, one from `missed` holds none.
    reached = least
    missed = floor
    while missed - reached > 1:
        middle = (reached + missed) // 2
        if reachable(cost, sizes, Window(middle, limit)):
            reached = middle
        else:
            missed = middle
    return Window(reached, limit)


@dataclass(frozen=True)
class Budget:
    """What a search may spend.

    Attributes:
        costs: The costs of the parent's axes that are counted, by metric: those that are recorded, and
            the limited one.
        cost: The limited one; it may be a time.
        full: What the parent costs.
        window: What the subnet may cost, from floor to limit.
        note: Why the window reaches further below the limit than the tolerance, or None.
    """

    costs: dict[Metric, Cost]
    cost: AnyCost
    full: int
    window: Window
    note: str | None


def budget_of(model: nn.Module, axes: Sequence[Axis], config: BudgetConfig) -> Budget:
    """The budget of a search.

    Args:
        model: The parent.
        axes: Its axes, with the options of the search space.
        config: Of the budget.

    Raises:
        InputError: The budget is out of reach, or it is a time and the model's cannot be predicted.
    """
    metric = config.metric()
    costs: dict[Metric, Cost] = {}
    for recorded in RECORDED:
        costs[recorded] = cost_of(model, axes, recorded)
    cost: AnyCost
    if metric == "latency":
        on = config.timed_on or TimedOnConfig()
        cost = time_cost(model, axes, on, cache_folder() / "times")
    else:
        cost = costs[metric] if metric in costs else cost_of(model, axes, metric)
        costs[metric] = cost
    # A share is of what the parent was measured to take, not of what it is predicted to.
    full = round(cost.tables.full) if isinstance(cost, TimeCost) else cost.of(sizes_of(axes))
    limit = config.limit(full)
    window = window_below(cost, option_sizes(axes), limit, config.tolerance)
    note = None
    if window.floor < limit * (1 - config.tolerance):
        note = (
            f"no architecture of this space costs between "
            f"{cost_text(cost, window.floor)} and the budget {cost_text(cost, limit)}"
        )
    return Budget(costs, cost, full, window, note)


def _equal_scores(sizes: Sequence[Ints]) -> list[Floats]:
    """A score of 0 for every option: any choice in the window is then a best one."""
    return [np.zeros(len(options)) for options in sizes]


def _widened(
    cost: AnyCost,
    sizes: Sequence[Ints],
    window: Window,
) -> list[int] | None:
    """The picks of widening one axis after the other up to the limit, if they are in the window."""
    orders: list[Ints] = []  # for each axis its options, the narrowest first
    picks: list[int] = []
    for options in sizes:
        order = np.argsort(options.prod(1), kind="stable")
        orders.append(order)
        picks.append(int(order[0]))
    widened = picked(sizes, picks)

    for axis, options in enumerate(sizes):
        order = orders[axis]
        # The widest option that fits, by bisection: costs grow with the width.
        fits = 0
        too_wide = len(order)
        while too_wide - fits > 1:
            middle = (fits + too_wide) // 2
            widened[axis] = options[order[middle]]
            if cost.of(widened) <= window.limit:
                fits = middle
            else:
                too_wide = middle
        picks[axis] = int(order[fits])
        widened[axis] = options[picks[axis]]
    if cost.of(widened) not in window:
        return None
    return picks

"""The budget of a search: what the subnet may cost, and what pulls the expected cost there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ofbnas.config import SearchConfig
from ofbnas.models.axes import Axis
from ofbnas.models.cost import Metric, sizes_of
from ofbnas.models.supernet import Supernet
from ofbnas.nas.budget import budget_of
from ofbnas.nas.decide import Alive, best_choice, survivors
from ofbnas.training import losses


class Pull(NamedTuple):
    """How the budget acts on the options' probabilities, all [].

    Attributes:
        loss: The loss that pulls the expected cost to the window.
        expected: The expected cost, as a share of the parent's.
        gap: How far that is above the middle of the window.
    """

    loss: Tensor
    expected: Tensor
    gap: Tensor


class CostConstraint:
    """What the subnet may cost.

    Attributes:
        budget: What the subnet may cost, with all that follows.
        costs: The costs of the parent's axes, by metric.
        window: What the subnet may cost, from floor to limit.
        note: Why the window reaches further below the budget than the tolerance, or None.
        multiplier: Lagrange multiplier of the budget, [].
    """

    def __init__(
        self,
        model: nn.Module,
        axes: Sequence[Axis],
        config: SearchConfig,
    ) -> None:
        """Find the window.

        Args:
            model: The parent.
            axes: The parent's axes.
            config: Configuration of the search.

        Raises:
            InputError: The budget is out of reach.
        """
        self.config = config
        self.metric = config.budget.metric()
        budget = budget_of(model, axes, config.budget)
        self.budget = budget
        self.costs = budget.costs
        self.cost = budget.cost
        self.full = budget.full
        self.window = budget.window
        self.note = budget.note
        self.device = next(model.parameters()).device
        self.expected = self.cost.expected(self.device)
        self.multiplier = torch.zeros(
            (),
            device=self.device,
            dtype=torch.float64,
        )

    def pull(self, supernet: Supernet) -> Pull:
        """How the budget acts on the options' probabilities now."""
        expected = self.expected(supernet.expected_sizes()) / self.full
        target = (self.window.floor + self.window.limit) / (2 * self.full)
        gap = expected - target
        loss = losses.budget_pull(
            gap,
            self.config.budget_weight,
            self.multiplier,
        )
        # In float64 until here: float32 would round costs of billions.
        return Pull(loss.float(), expected, gap)

    def ascend(self, gap: Tensor) -> None:
        """Dual ascent: raise the multiplier while the gap is above 0, and lower it below."""
        self.multiplier += self.config.budget_ascent * gap.detach()

    def survivors(self, supernet: Supernet) -> Alive:
        """The options that survive a decision, with the window kept in reach."""
        return survivors(
            supernet,
            self.cost,
            self.window,
            self.config.threshold,
        )

    def best_choice(self, supernet: Supernet) -> Alive:
        """One option for each axis: the most probable architecture in the window."""
        return best_choice(supernet, self.cost, self.window)

    @torch.no_grad()
    def projected(
        self,
        metric: Metric,
        supernet: Supernet,
        *,
        decided: bool,
    ) -> float:
        """The cost that the subnet will have.

        Args:
            metric: The metric of the cost.
            supernet: The network as it is now.
            decided: Whether its axes are decided. Until then the projection is the middle of the
                window for the budget's own metric, and the expected cost for any other.
        """
        if decided:
            return self.costs[metric].of(sizes_of(supernet.axes))
        if metric == self.metric:
            return (self.window.floor + self.window.limit) / 2
        expected = self.costs[metric].expected(self.device)
        return float(expected(supernet.expected_sizes()))

"""Refinement: what a search has chosen competes with other sizes of the same cost, by measurement.

A search weighs options one by one, but losses do not add up once all axes are cut together. So
whole candidates are made: cut from the parent, compensated, and compared with the parent on images
that they were not compensated on. Before any training, that tells good sizes from bad ones. From
the best of what was chosen and of uniform sizes, a hill is climbed: kinds of axes, then their first
and second halves, then single axes get a larger or smaller share of the budget, for as long as that
brings a candidate nearer to the parent. Of networks whose blocks have to be alike, there are so few
that no hill is climbed. It needs no labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from ofbnas.config import SearchConfig
from ofbnas.models.axes import Axis, Size
from ofbnas.models.time_cost import TimeCost
from ofbnas.nas.alike import choices, picked
from ofbnas.nas.budget import Budget, option_sizes
from ofbnas.nas.comparison import comparison_with, fisher_saliency
from ofbnas.nas.compensation import Cut, ParentActivations, compensate_
from ofbnas.nas.images import first_images
from ofbnas.nas.plain import Network
from ofbnas.nas.proportional import proportional
from ofbnas.nas.saliency import best_units
from ofbnas.training.data import Data, Epoch

FACTOR = 1.25  # by which a move multiplies shares, or divides them
SALIENCY_STREAM = 3  # of random numbers, for the labels that saliency draws

Units = Mapping[str, Tensor]


def refined(
    chosen: Units, budget: Budget, parent: Network, data: Data, config: SearchConfig, seed: int
) -> dict[str, Tensor]:
    """Units that are as near to the parent as those that a search has chosen, or nearer.

    Args:
        chosen: For each axis, which of the parent's units the search keeps, [groups, channels].
        budget: What they may cost.
        parent: The parent.
        data: Its training images are looked at; labels are not.
        config: The search's.
        seed: Of the choice of images.
    """
    # A budget in time is kept by measuring what was decided, which another network was not.
    if not config.refine.candidates or isinstance(budget.cost, TimeCost):
        return dict(chosen)
    images = first_images(data, config.refine.images, seed)
    return dict(Refinement(parent, budget, images, config, seed).best(chosen).units)


class Candidate(NamedTuple):
    """A choice of units.

    Attributes:
        units: For each axis, which of the parent's units it keeps, [groups, channels].
        divergence: Of the compensated network from the parent.
    """

    units: Units
    divergence: float


class Refinement:
    """Candidates within a budget, and how they compare with their parent."""

    def __init__(
        self,
        parent: Network,
        budget: Budget,
        images: Sequence[Tensor],
        config: SearchConfig,
        seed: int,
    ) -> None:
        """Measure the parent.

        Args:
            parent: The parent.
            budget: What a candidate may cost.
            images: Batches [batch, channels, height, width]; candidates are compensated on one half
                of them and compared on the other. One batch serves as both.
            config: The search's; `refine` and `compensation` are used.
            seed: Of the labels that saliency draws.
        """
        half = len(images) // 2
        self.parent = parent
        self.budget = budget
        self.solved_on = images[half:]
        compared_on = images[:half] or images
        self.comparison = comparison_with(parent.model, compared_on)
        self.activations = ParentActivations(parent.model)
        self.ridge = config.compensation.ridge
        self.most = config.refine.candidates
        epoch = Epoch(seed, 0, SALIENCY_STREAM)
        self.saliency = fisher_saliency(
            parent.model, parent.axes, compared_on, self.comparison, epoch
        )

    def best(self, chosen: Units) -> Candidate:
        """The best candidate that is found.

        Args:
            chosen: What a search has chosen; only what is nearer to the parent replaces it.
        """
        axes = self.parent.axes
        best = self.measured(chosen)
        shares = [chosen[axis.name].numel() / axis.units for axis in axes]
        seen: list[list[Size]] = []

        def is_better(sizes: list[Size]) -> bool:
            """Whether these sizes are the best so far; others are looked at once."""
            nonlocal best
            is_new = sizes not in seen and len(seen) < self.most
            if not is_new or self.budget.cost.of(sizes) not in self.budget.window:
                return False
            seen.append(sizes)
            candidate = self.measured(self._units(sizes))
            if candidate.divergence >= best.divergence:
                return False
            best = candidate
            return True

        if self.budget.cost.alike:
            for sizes in self._alike():
                is_better(sizes)
            return best

        equal = [1.0] * len(axes)
        if is_better(proportional(axes, self.budget, equal)):
            shares = equal
        improved = True
        while improved:
            improved = False
            for move in moves(axes):
                moved = [share * factor for share, factor in zip(shares, move, strict=True)]
                if is_better(proportional(axes, self.budget, moved)):
                    shares = moved
                    improved = True
        return best

    def _alike(self) -> Iterator[list[Size]]:
        """The sizes of networks whose blocks are alike, the most expensive first."""
        options = option_sizes(self.parent.axes)
        every = [picked(options, picks) for picks in choices(self.budget.cost.alike, options)]
        for sizes in sorted(every, key=self.budget.cost.of, reverse=True):
            yield [(groups, channels) for groups, channels in sizes.tolist()]

    def measured(self, units: Units) -> Candidate:
        """A candidate, cut from the parent and compensated."""
        network = self.parent.cut(
            {
                axis.name: units[axis.name].to(self.solved_on[0].device)
                for axis in self.parent.axes
                if units[axis.name].numel() < axis.units
            }
        )
        cut = Cut.between(self.parent, network)
        images = self.solved_on
        compensate_(cut, lambda: images, self.ridge, activations=self.activations)
        return Candidate(units, self.comparison.divergence(network.model))

    def _units(self, sizes: Sequence[Size]) -> dict[str, Tensor]:
        """The most salient units of the parent, as many as sizes say."""
        return {
            axis.name: best_units(self.saliency[axis.name], axis.size, size).cpu()
            for axis, size in zip(self.parent.axes, sizes, strict=True)
        }


def moves(axes: Sequence[Axis]) -> Iterator[list[float]]:
    """Factors of the shares of axes, coarse ones first: of kinds, of their halves, of single axes."""
    groups: list[list[int]] = []
    of_kind: dict[str, list[int]] = {}
    for index, axis in enumerate(axes):
        of_kind.setdefault(axis.kind, []).append(index)
    groups.extend(of_kind.values())
    for indices in of_kind.values():
        if len(indices) > 2:
            half = len(indices) // 2
            groups.extend([indices[:half], indices[half:]])
    groups.extend([index] for index in range(len(axes)))

    for group in groups:
        for factor in (FACTOR, 1 / FACTOR):
            yield [factor if index in group else 1.0 for index in range(len(axes))]

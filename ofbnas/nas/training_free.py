"""A search without training: options are scored, chosen together and cut, in steps.

What an option costs is measured: the model is cut to that option alone, and its outputs are
compared with the parent's. Such losses add up while cuts are small. So a deep cut is made in steps:
after each, compensation restores what it can, and all options left are measured anew. It takes
minutes, and needs images but no labels. A lower budget goes on from the network of a higher one.

Measured losses and an exact knapsack are also what SPDY (arXiv 2201.13096) and ZipLM (2302.04089)
choose by.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from ofbnas.config import BudgetConfig, SearchConfig
from ofbnas.models.axes import Axis, at_sizes
from ofbnas.models.cost import sizes_of
from ofbnas.models.shrink import with_tensors
from ofbnas.nas.budget import budget_of, choose, choose_measured, option_sizes, window_below
from ofbnas.nas.comparison import comparison_with, fisher_saliency
from ofbnas.nas.compensation import Cut, compensate_
from ofbnas.nas.dynamic import Floats, Ints
from ofbnas.nas.finished_blocks import FinishedBlocks
from ofbnas.nas.history import axes_record
from ofbnas.nas.images import BATCH_SIZE, first_images
from ofbnas.nas.plain import Network
from ofbnas.nas.saliency import best_units
from ofbnas.nas.stand_in import input_moments, stand_in
from ofbnas.training.checkpoint import load_checkpoint, save_checkpoint
from ofbnas.training.data import Data, Epoch
from ofbnas.training.events import Callback

LABELS_STREAM = 2  # of random numbers, for the labels that saliency draws


class TrainingFreeSearch:
    """A parent, the images it is compared on, and its budgets.

    Attributes:
        budgets: What each subnet may cost, in the order given.
        history: One record per step.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        config: SearchConfig,
        axes: Sequence[Axis],
        seed: int,
        more: Sequence[BudgetConfig] = (),
    ) -> None:
        """Take the images, and find the windows of the budgets.

        Args:
            model: The trained parent, on the data's device.
            data: Images of its training split are looked at; labels are not.
            config: The search's; `training_free`, `compensation` and `budget` are used.
            axes: What is searched.
            seed: Of the choice of images.
            more: Budgets besides that of `config`, of the same metric.

        Raises:
            InputError: A budget is out of reach.
        """
        self.config = config.training_free
        self.device = data.device
        self.seed = seed
        self.parent = Network.whole(model, axes)
        self.settings = repr((config, seed, [(axis.name, axis.options) for axis in axes], *more))

        self.budgets = [budget_of(model, axes, budget) for budget in (config.budget, *more)]
        self.cost = self.budgets[0].cost
        self.full = self.budgets[0].full
        self.tolerance = config.budget.tolerance
        self.history: list[dict[str, Any]] = []

        self.compensation = config.compensation
        num_images = max(self.compensation.images, self.config.scoring_images)
        self.images = first_images(data, num_images, seed)
        self.scoring_images = self.images[: max(1, self.config.scoring_images // BATCH_SIZE)]
        self.comparison = comparison_with(model, self.scoring_images)

    def run(
        self, callbacks: Sequence[Callback] = (), checkpoint: Path | None = None
    ) -> Iterator[tuple[int, Network]]:
        """Cut in steps, each to about the same share of the one before, from budget to budget.

        Args:
            callbacks: Each step is an epoch to them.
            checkpoint: A file that is written after each step, and resumed from if it is there.

        Yields:
            The highest budget that is left, as its number in `budgets`, and its network. Those that
            a checkpoint is already below are left out.
        """
        order = sorted(range(len(self.budgets)), key=self._limit, reverse=True)
        limits = self._limits([self._limit(number) for number in order])
        num_steps = sum(map(len, limits))
        network = self.parent
        state = load_checkpoint(checkpoint, self.settings, self.device)
        if state is not None:
            network = self._rebuilt(state["sizes"], state["tensors"], state["units"])
            self.history = list(state["history"])
        for callback in callbacks:
            callback.on_fit_begin("search", len(self.history), num_steps)
            for record in self.history:
                callback.on_record(record)

        step = 0
        for number, limits_of_steps in zip(order, limits, strict=True):
            for limit in limits_of_steps:
                if step == len(self.history):  # the steps before are in the checkpoint
                    network = self._step(network, limit, step)
                    self._report(network, num_steps, callbacks, checkpoint)
                step += 1
            if step == len(self.history):
                yield number, network

        for callback in callbacks:
            callback.on_end("search")

    def _limit(self, number: int) -> int:
        """The highest cost of a budget."""
        return self.budgets[number].window.limit

    def _report(
        self,
        network: Network,
        num_steps: int,
        callbacks: Sequence[Callback],
        checkpoint: Path | None,
    ) -> None:
        """Write the checkpoint after a step, and tell callbacks of it."""
        record = self.history[-1]
        if checkpoint is not None:
            save_checkpoint(checkpoint, _state(network, self.history), self.settings)
        for callback in callbacks:
            callback.on_decision(record)
            callback.on_record(record)
            callback.on_epoch("search", record["step"], num_steps, {"divergence": record["task"]})

    def _rebuilt(
        self,
        sizes: Mapping[str, tuple[int, int]],
        tensors: Mapping[str, Tensor],
        units: Mapping[str, Tensor],
    ) -> Network:
        """The network of a checkpoint."""
        axes = at_sizes(self.parent.axes, sizes)
        model = with_tensors(self.parent.model, axes, tensors)
        return Network(model.eval(), axes, {name: kept.cpu() for name, kept in units.items()})

    def _limits(self, ends: Sequence[int]) -> list[list[int]]:
        """The highest cost after each step, in a list for each end, down to that end."""
        limits = []
        start = self.full
        for end in ends:
            share = end / start
            num_steps = max(1, math.ceil(math.log(share) / math.log(self.config.step) - 1e-9))
            between = [math.floor(start * share ** (k / num_steps)) for k in range(1, num_steps)]
            limits.append([*between, end])
            start = end
        return limits

    def _step(self, before: Network, limit: int, step: int) -> Network:
        """The network within a limit of cost, compensated; the history gets a record of it."""
        saliency = self._saliency(before, step)
        sizes = [_options_left(axis) for axis in before.axes]
        scores = self._scores(before, sizes, saliency)
        window = window_below(self.cost, sizes, limit, self.tolerance)
        # Between budgets the network need not be within a limit, so it is not measured there.
        is_last = any(limit == budget.window.limit for budget in self.budgets)
        choice = choose_measured if is_last else choose
        picks = choice(self.cost, sizes, scores, window)
        if picks is None:
            raise RuntimeError(f"no architecture lies in {window}, though it was found in reach")

        kept: dict[str, Tensor] = {}
        for axis, options, pick in zip(before.axes, sizes, picks, strict=True):
            groups, channels = options[pick].tolist()
            if (groups, channels) != axis.size:
                kept[axis.name] = best_units(saliency[axis.name], axis.size, (groups, channels))
        network = before.cut(kept)
        compensate_(Cut.between(self.parent, network), lambda: self.images, self.compensation.ridge)
        divergence = self.comparison.divergence(network.model)
        self.history.append(self._record(before, network, step, divergence))
        return network

    def _saliency(self, network: Network, step: int) -> dict[str, Tensor]:
        """How much each unit matters to what the network says, by its Fisher information."""
        epoch = Epoch(self.seed, step, LABELS_STREAM)
        images = self.scoring_images
        return fisher_saliency(network.model, network.axes, images, self.comparison, epoch)

    def _scores(
        self, network: Network, sizes: Sequence[Ints], saliency: Mapping[str, Tensor]
    ) -> list[Floats]:
        """For each axis, minus what each of its options alone adds to the divergence, [options]."""
        present = self.comparison.divergence(network.model)
        moments = input_moments(network.model, network.axes, self.scoring_images)
        finished = FinishedBlocks(network.model, list(moments))
        scores = []
        for axis, options in zip(network.axes, sizes, strict=True):
            position = finished.position([binding.tensor for binding in axis.bindings])
            losses = []
            for groups, channels in options.tolist():
                if (groups, channels) == axis.size:
                    losses.append(0.0)
                    continue
                kept = best_units(saliency[axis.name], axis.size, (groups, channels))
                tensors = stand_in(network.model, axis, kept, moments, self.compensation.ridge)
                # Layers before a branch that goes can add its mean instead: it is left in place
                # with its mean alone.
                removed = {axis.name: kept} if len(kept) else {}
                cut = network.cut(removed, tensors)
                skipping = finished.before(position, cut.model)
                divergence = self.comparison.divergence(cut.model, skipping)
                losses.append(max(0.0, divergence - present))
            scores.append(-np.array(losses))
        return scores

    def _record(
        self, before: Network, after: Network, step: int, divergence: float
    ) -> dict[str, Any]:
        """A row of the history: sizes and options before a step, and what it led to."""
        options = [len(_options_left(axis)) for axis in before.axes]
        widths = [float(axis.units) for axis in after.axes]
        return {
            "kind": "decision",
            "phase": "search",
            "epoch": step + 1,
            "step": step + 1,
            "task": divergence,
            "expected_cost": self.cost.of(sizes_of(after.axes)) / self.full,
            "axes": axes_record(before.axes, options, widths),
        }


def _state(network: Network, history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Plain tensors and values of a checkpoint."""
    return {
        "sizes": {axis.name: axis.size for axis in network.axes},
        "tensors": {name: tensor.detach() for name, tensor in network.model.named_parameters()},
        "units": network.units,
        "history": list(history),
    }


def _options_left(axis: Axis) -> Ints:
    """The options of an axis that are not above its present size, [options, 2]."""
    options = option_sizes([axis])[0]
    left: Ints = options[(options <= axis.size).all(1)]
    return left

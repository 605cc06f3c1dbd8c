"""Cheap alternatives to a search: rules that give each axis a size, and Torch-Pruning's rankings.

Each gives a smaller network of the same parent within the same budget. `benchmarks/quality.py`
trains them like what a search finds.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
import torch_pruning
from torch import Tensor, nn

from ofbnas.config import SearchConfig
from ofbnas.models.axes import Axis, Size
from ofbnas.models.axes import axes as axes_of
from ofbnas.models.cost import Cost, cost_of, sizes_of
from ofbnas.models.shrink import load_
from ofbnas.nas.budget import Budget, choose, option_sizes
from ofbnas.nas.dynamic import Floats
from ofbnas.nas.plain import Network
from ofbnas.nas.proportional import widest
from ofbnas.nas.saliency import best_units, taylor
from ofbnas.nas.stage import Stage
from ofbnas.training.data import Data, Epoch
from ofbnas.training.loop import Losses

TRIES = 1_000_000  # of random sizes, before it is said that none lies in the budget
IDLE = 1e-3  # of the mean saliency of an axis: a unit below is idle


class NoTaskGradient(Stage):
    """A search whose options' logits do not learn from images, only from budget and one-hot loss."""

    def decide_losses(self, step: int) -> Losses:  # noqa: D102 (that of `Stage`)
        for mask in self.network.open_axes().values():
            mask.logits.grad = None
        return super().decide_losses(step)


def saliency_of(parent: Network, data: Data, config: SearchConfig, seed: int) -> dict[str, Tensor]:
    """Taylor saliency on as many labelled images as a search starts with, but in batches of 8."""
    batches = data.shuffled(config.batch_size, Epoch(seed))
    parts = (
        part
        for images, labels in islice(batches, config.importance.start_batches)
        for part in zip(images.split(8), labels.split(8), strict=True)
    )
    return taylor(parent.model, parent.axes, parts)


def cut_to(parent: Network, sizes: Sequence[Size], saliency: Mapping[str, Tensor]) -> Network:
    """The parent cut to given sizes, with its most salient units."""
    kept = {
        axis.name: best_units(saliency[axis.name], axis.size, size)
        for axis, size in zip(parent.axes, sizes, strict=True)
        if size != axis.size
    }
    return parent.cut(kept)


def live_then_uniform(
    axes: Sequence[Axis], budget: Budget, saliency: Mapping[str, Tensor]
) -> list[Size]:
    """All axes at the same share of those of their units that matter at all."""
    live = []
    for axis in axes:
        of_axis = saliency[axis.name]
        live.append(float((of_axis > IDLE * of_axis.mean()).float().mean()))
    return widest(lambda share: [share * part for part in live], axes, budget)


def alike(axes: Sequence[Axis], budget: Budget, found: Sequence[Size]) -> list[Size]:
    """All axes of a kind at the mean share of that kind in a found architecture.

    All shares are then multiplied by the same factor to meet the budget.
    """
    shares: dict[str, list[float]] = {}
    for axis, size in zip(axes, found, strict=True):
        shares.setdefault(axis.kind, []).append(size[0] * size[1] / axis.units)
    means = {kind: float(np.mean(values)) for kind, values in shares.items()}
    highest = max(means.values())
    return widest(lambda share: [means[axis.kind] / highest * share for axis in axes], axes, budget)


def random_sizes(axes: Sequence[Axis], budget: Budget, seed: int) -> list[Size]:
    """A random option for each axis, drawn anew until their cost lies in the budget's window."""
    generator = np.random.default_rng(seed)
    options = option_sizes(axes)
    for _ in range(TRIES):
        drawn = [choices[generator.integers(len(choices))] for choices in options]
        if budget.window.floor <= budget.cost.of(np.array(drawn)) <= budget.window.limit:
            return [(int(groups), int(channels)) for groups, channels in drawn]
    raise RuntimeError(f"no random sizes lie in {budget.window} after {TRIES:,} tries")


def knapsack(axes: Sequence[Axis], budget: Budget, saliency: Mapping[str, Tensor]) -> list[Size]:
    """The sizes within the budget whose kept units have the highest sum of saliencies."""
    options = option_sizes(axes)
    scores: list[Floats] = []
    for axis, choices in zip(axes, options, strict=True):
        of_axis = saliency[axis.name].double()
        sums = [
            float(of_axis[best_units(of_axis, axis.size, (groups, channels)).flatten()].sum())
            for groups, channels in choices.tolist()
        ]
        scores.append(np.array(sums))
    picks = choose(budget.cost, options, scores, budget.window)
    assert picks is not None  # `budget_of` has found that the window is in reach
    return [
        (int(choices[pick][0]), int(choices[pick][1]))
        for choices, pick in zip(options, picks, strict=True)
    ]


RATIO_STEP = 0.05
RATIOS = np.arange(RATIO_STEP, 0.96, RATIO_STEP)
# How Torch-Pruning ranks: units of each layer on their own, of all layers together, or of layers
# with the same surroundings together (isomorphic pruning, ECCV 2024).
SCOPES: dict[str, dict[str, Any]] = {
    "local": {"global_pruning": False},
    "global": {"global_pruning": True},
    "isomorphic": {"global_pruning": True, "isomorphic": True},
}


class Ranking(NamedTuple):
    """How Torch-Pruning ranks units.

    Attributes:
        scope: A name of `SCOPES`.
        hessian: By the diagonal of the Hessian instead of Taylor expansion.
    """

    scope: str
    hessian: bool = False


def torch_pruned(
    parent: nn.Module, data: Data, config: SearchConfig, budget: Budget, ranking: Ranking, seed: int
) -> nn.Module:
    """The parent pruned by Torch-Pruning, within the budget.

    It has no budget of its own: the ratio is found by bisection. Heads stay, and get narrower, as
    in its example for timm's Vision Transformers.
    """
    batches = list(
        islice(data.shuffled(config.batch_size, Epoch(seed)), config.importance.start_batches)
    )
    gradients = _squared_gradients if ranking.hessian else _gradients
    parent_gradients = gradients(parent, batches)

    def pruned_at(ratio: float) -> tuple[nn.Module, bool]:
        pruned = _torch_pruned_at(parent, batches[0][0][:1], parent_gradients, ratio, ranking)
        return pruned, macs_of(pruned) <= budget.window.limit

    # Above some ratio it refuses to prune layers of which too little would be left, and what it
    # makes becomes larger again. So the lowest ratio that fits is found first.
    for ratio in RATIOS:
        best, fits = pruned_at(ratio)
        if fits:
            break
    else:
        raise RuntimeError(f"Torch-Pruning, {ranking.scope}: no ratio meets {budget.window}")
    high = ratio
    low = ratio - RATIO_STEP
    for _ in range(8):
        ratio = (low + high) / 2
        pruned, fits = pruned_at(ratio)
        if fits:
            high = ratio
            best = pruned
        else:
            low = ratio
    return best


def _torch_pruned_at(
    parent: nn.Module,
    example: Tensor,
    gradients: Mapping[str, Tensor],
    ratio: float,
    ranking: Ranking,
) -> nn.Module:
    """The parent pruned at one ratio."""
    model = copy.deepcopy(parent).train(False)
    heads = {
        module.qkv: module.num_heads
        for module in model.modules()
        if hasattr(module, "qkv") and hasattr(module, "num_heads")
    }
    importance = torch_pruning.importance
    pruner = torch_pruning.pruner.BasePruner(
        model,
        example,
        importance=(
            importance.GroupHessianImportance()
            if ranking.hessian
            else importance.GroupTaylorImportance()
        ),
        pruning_ratio=ratio,
        max_pruning_ratio=0.95,
        ignored_layers=[model.get_classifier()],
        num_heads=heads,
        prune_head_dims=True,
        **SCOPES[ranking.scope],
    )
    for name, parameter in model.named_parameters():
        parameter.grad = gradients[name].clone()
    pruner.step()
    model.zero_grad()
    return _with_widths(model)


def _gradients(model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """The sum of the batches' gradients, by parameter name."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    sums = [torch.zeros_like(parameter) for parameter in parameters]
    for images, labels in batches:
        loss = nn.functional.cross_entropy(model(images), labels)
        for total, gradient in zip(sums, torch.autograd.grad(loss, parameters), strict=True):
            total += gradient
    return dict(zip(names, sums, strict=True))


def _squared_gradients(
    model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]]
) -> dict[str, Tensor]:
    """The mean over images of squared gradients, by parameter name: the Hessian's diagonal.

    Torch-Pruning's own accumulation (1.6.0) keeps only those of the last image.
    """
    parameters = {name: tensor.detach() for name, tensor in model.named_parameters()}

    def loss(tensors: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        outputs = torch.func.functional_call(model, tensors, image[None])
        return nn.functional.cross_entropy(outputs, label[None])

    of_images = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))
    sums = {name: torch.zeros_like(tensor) for name, tensor in parameters.items()}
    for images, labels in batches:
        for part in zip(images.split(8), labels.split(8), strict=True):
            for name, gradients in of_images(parameters, *part).items():
                sums[name] += gradients.square().sum(0)
    num_images = sum(len(labels) for _, labels in batches)
    return {name: total / num_images for name, total in sums.items()}


def _with_widths(model: nn.Module) -> nn.Module:
    """A model whose attributes follow the widths that its tensors have by now."""
    axes = axes_of(model)
    load_(model, axes, dict(model.named_parameters()))
    return model.eval()


def macs_of(model: nn.Module) -> int:
    """Multiply-accumulates per image of any timm model."""
    axes = axes_of(model)
    cost: Cost = cost_of(model, axes)
    return cost.of(sizes_of(axes))

"""Cheap alternatives to a search: rules that give each axis a size, and Torch-Pruning's rankings.

Each gives a smaller network of the same parent within the same budget. `benchmarks/quality.py`
trains them like what a search finds.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch_pruning
from torch import Tensor, nn

from ofbnas.config import SearchConfig
from ofbnas.models.axes import Axis, Size
from ofbnas.models.axes import axes as axes_of
from ofbnas.models.cost import Cost, cost_of, sizes_of
from ofbnas.models.shrink import load_
from ofbnas.nas.budget import Budget, choose, option_sizes
from ofbnas.nas.dynamic import Floats, Ints
from ofbnas.nas.plain import Network
from ofbnas.nas.saliency import best_units, taylor
from ofbnas.training.data import Data, Epoch

TRIES = 1_000_000  # of random sizes, before it is said that none lies in the budget
IDLE = 1e-3  # of the mean saliency of an axis: a unit below is idle
SHARES = np.linspace(0.01, 1, 397)


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


def uniform(axes: Sequence[Axis], budget: Budget) -> list[Size]:
    """All axes at the same share of the parent's widths: the largest share within the budget."""
    return _largest(lambda share: [share] * len(axes), axes, budget)


def live_then_uniform(
    axes: Sequence[Axis], budget: Budget, saliency: Mapping[str, Tensor]
) -> list[Size]:
    """All axes at the same share of those of their units that matter at all."""
    live = []
    for axis in axes:
        of_axis = saliency[axis.name]
        live.append(float((of_axis > IDLE * of_axis.mean()).float().mean()))
    return _largest(lambda share: [share * part for part in live], axes, budget)


def alike(axes: Sequence[Axis], budget: Budget, found: Sequence[Size]) -> list[Size]:
    """All axes of a kind at the mean share of that kind in a found architecture.

    All shares are then multiplied by the same factor to meet the budget.
    """
    shares: dict[str, list[float]] = {}
    for axis, size in zip(axes, found, strict=True):
        shares.setdefault(axis.kind, []).append(size[0] * size[1] / axis.units)
    means = {kind: float(np.mean(values)) for kind, values in shares.items()}
    highest = max(means.values())
    return _largest(
        lambda share: [means[axis.kind] / highest * share for axis in axes], axes, budget
    )


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


def _largest(
    shares_at: Callable[[float], list[float]], axes: Sequence[Axis], budget: Budget
) -> list[Size]:
    """The most expensive sizes within the budget among those that a single number gives."""
    options = option_sizes(axes)
    best: list[Size] = []
    highest = -1
    for share in SHARES:
        sizes = [
            _nearest(choices, wanted * axis.units)
            for axis, choices, wanted in zip(axes, options, shares_at(float(share)), strict=True)
        ]
        cost = budget.cost.of(sizes)
        if highest < cost <= budget.window.limit:
            highest = cost
            best = sizes
    if not best:
        raise RuntimeError(f"no such sizes cost at most {budget.window.limit:,}")
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


# How Torch-Pruning ranks: units of each layer on their own, of all layers together, or of layers
# with the same surroundings together (isomorphic pruning, ECCV 2024).
SCOPES: dict[str, dict[str, Any]] = {
    "local": {"global_pruning": False},
    "global": {"global_pruning": True},
    "isomorphic": {"global_pruning": True, "isomorphic": True},
}


def torch_pruned(
    parent: nn.Module, data: Data, config: SearchConfig, budget: Budget, scope: str, seed: int
) -> nn.Module:
    """The parent pruned by Torch-Pruning with Taylor importance, within the budget.

    It has no budget of its own: the ratio is found by bisection. Heads stay, and get narrower, as
    in its example for timm's Vision Transformers.
    """
    low = 0.0
    high = 1.0
    best: nn.Module | None = None
    for _ in range(12):
        ratio = (low + high) / 2
        pruned = _torch_pruned_at(parent, data, config, ratio, scope, seed)
        if pruned is not None and macs_of(pruned) > budget.window.limit:
            low = ratio
            continue
        high = ratio
        best = pruned or best
    if best is None:
        raise RuntimeError(f"Torch-Pruning, {scope}: no ratio meets {budget.window}")
    return best


def _torch_pruned_at(
    parent: nn.Module, data: Data, config: SearchConfig, ratio: float, scope: str, seed: int
) -> nn.Module | None:
    """The parent pruned at one ratio; None if nothing of some layer would be left."""
    model = copy.deepcopy(parent).train(False)
    heads = {
        module.qkv: module.num_heads
        for module in model.modules()
        if hasattr(module, "qkv") and hasattr(module, "num_heads")
    }
    batches = islice(data.shuffled(config.batch_size, Epoch(seed)), config.importance.start_batches)
    batches = list(batches)
    pruner = torch_pruning.pruner.BasePruner(
        model,
        batches[0][0][:1],
        importance=torch_pruning.importance.GroupTaylorImportance(),
        pruning_ratio=ratio,
        max_pruning_ratio=0.95,
        ignored_layers=[model.get_classifier()],
        num_heads=heads,
        prune_head_dims=True,
        **SCOPES[scope],
    )
    model.zero_grad()
    for images, labels in batches:
        nn.functional.cross_entropy(model(images), labels).backward()
    pruner.step()
    model.zero_grad()
    return _with_widths(model)


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

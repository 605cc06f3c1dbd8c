"""What a study would search and spend, known before anything is spent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ofbnas.axes import Axis, input_size
from ofbnas.budget import option_sizes, window_below
from ofbnas.config import BudgetConfig, ImageDataConfig, StudyConfig, TrainConfig
from ofbnas.cost import cost_of, least_sizes, sizes_of
from ofbnas.errors import InputError
from ofbnas.parent import data_of, untrained_parent

# Bytes for each parameter of a search: weight, masked weight, gradient, two moments.
BYTES_PER_PARAMETER = 20
HALF_PRECISION = 0.56  # activations kept under autocast, as a share of those in float32; measured on DeiT-S


def describe_space(model: nn.Module, axes: Sequence[Axis], name: str) -> dict[str, Any]:
    """A model's axes, their options, and the costs they reach."""
    macs, params = cost_of(model, axes, "macs"), cost_of(model, axes, "params")
    full, least = sizes_of(axes), least_sizes(axes)
    return {
        "model": name,
        "gmacs": {"full": macs.of(full) / 1e9, "min": macs.of(least) / 1e9},
        "params": {"full": params.of(full), "min": params.of(least)},
        "log10_architectures": sum(math.log10(len(a.options[0]) * len(a.options[1])) for a in axes),
        "axes": [
            {
                "axis": axis.name,
                "kind": axis.kind,
                "size": list(axis.size),
                "options": {"groups": list(axis.options[0]), "channels": list(axis.options[1])},
            }
            for axis in axes
        ],
    }


def plan(config: StudyConfig) -> dict[str, Any]:
    """The space, the budgets, the steps, the memory and the rungs, in epochs, of a study.

    Raises:
        InputError: The model cannot be made or searched, a budget is out of reach, or the number of images is unknown.
    """
    parent = untrained_parent(config)
    images, counted = _train_images(config)
    steps = _steps(config.search, images)
    tuning = 0 if config.finetune is None else _steps(config.finetune, images)
    return describe_space(parent.model, parent.axes, config.model.name) | {
        "study": config.name,
        "trials": config.sweep.n_trials,
        "rungs": list(config.rungs(config.search.epochs)),
        "budgets": check_budgets(config, parent.model, parent.axes),
        "train_images": images,
        "train_images_counted": counted,
        "search_steps": steps,
        "finetune_steps": tuning,
        "study_steps": (steps + tuning) * config.sweep.n_trials,
        "memory_per_process_gb": memory(parent.model, config.search) / 1e9,
    }


def asked_budgets(config: StudyConfig) -> list[BudgetConfig]:
    """The budgets that a study may ask for, or the two ends of their range."""
    for name, param in config.sweep.params.items():
        if name.startswith("search.budget."):
            return [config.with_values({name: value}).search.budget for value in param.ends()]
    return [config.search.budget]


def check_budgets(config: StudyConfig, model: nn.Module, axes: Sequence[Axis]) -> list[dict[str, Any]]:
    """Each budget's limit, and how near an architecture of the space comes to it.

    Raises:
        InputError: One is out of reach.
    """
    found = []
    for budget in asked_budgets(config):
        cost = cost_of(model, axes, budget.metric())
        limit = budget.limit(cost.of(sizes_of(axes)))
        window = window_below(cost, option_sizes(axes), limit, budget.tolerance)
        found.append({"metric": budget.metric(), "limit": limit, "reached_from": window.floor})
    return found


def memory(model: nn.Module, config: TrainConfig) -> int:
    """Bytes that a step of a search needs at least, by an estimate that knows no allocator.

    Args:
        model: The parent.
        config: Batch, accumulation and precision.
    """
    parameters = sum(p.numel() for p in model.parameters())
    one, two = (_saved(model, batch) for batch in (1, 2))
    per_image = (two - one) * (HALF_PRECISION if config.amp else 1.0)
    images = math.ceil(config.batch_size / config.accumulate)
    return int(parameters * (BYTES_PER_PARAMETER + 4 * (config.ema is not None)) + per_image * images)


def _saved(model: nn.Module, batch: int) -> int:
    """Bytes that a forward pass keeps for the backward pass, weights included; nothing is computed."""
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    meta = {n: t.detach().to("meta").requires_grad_(t.is_floating_point()) for n, t in tensors.items()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        torch.func.functional_call(model, meta, (torch.empty(batch, *input_size(model), device="meta"),)).sum()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def _train_images(config: StudyConfig) -> tuple[int, bool]:
    """Training images, and whether they were counted or only promised."""
    data = config.data
    if isinstance(data, ImageDataConfig) and data.path is not None and not data.path.exists():
        if data.train_images is None:
            raise InputError(
                f"data.path {data.path}: no such folder; give one, or data.train_images to plan without the images"
            )
        share = 1.0 if data.val_split is not None else 1 - data.val_share
        return round(data.train_images * share), False
    return data_of(config).train_images, True


def _steps(training: TrainConfig, images: int) -> int:
    return training.epochs * max(1, images // training.batch_size)

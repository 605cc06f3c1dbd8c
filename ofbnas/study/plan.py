"""What a study would search and spend, known before anything is spent."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ofbnas.config import (
    BudgetConfig,
    ImageDataConfig,
    OwnDataConfig,
    SmallDataConfig,
    StudyConfig,
    TrainConfig,
)
from ofbnas.config.ranges import ChoiceParam
from ofbnas.errors import InputError
from ofbnas.models.axes import Axis, input_size
from ofbnas.models.axes.axis import Kind
from ofbnas.models.cost import cost_of, least_sizes, sizes_of
from ofbnas.models.time_cost import TimeCost
from ofbnas.nas.alike import choices
from ofbnas.nas.budget import budget_of, option_sizes
from ofbnas.nas.search import compress
from ofbnas.study.images import data_of
from ofbnas.study.parent import (
    Parent,
    check_weights,
    meta_parent,
    parent_with,
    untrained_parent,
)
from ofbnas.training import quality
from ofbnas.training.data import Data, may_download
from ofbnas.training.events import Callback
from ofbnas.training.features import has_classifier

# Bytes for each parameter of a search: weight, masked weight, gradient, two moments.
BYTES_PER_PARAMETER = 20
BYTES_OF_AVERAGE = 4  # more for each parameter, where its moving average is kept
# Activations kept under autocast, as a share of those in float32; measured on DeiT-S.
HALF_PRECISION = 0.56
MEASURED_BETWEEN = 3  # budgets between the ends of a range that `measure` tries


def describe_space(model: nn.Module, axes: Sequence[Axis], name: str) -> dict[str, Any]:
    """A model's axes, their options, and the range of costs of their combinations.

    Args:
        model: On any device.
        axes: What is searched in it.
        name: timm's name of it.
    """
    macs = cost_of(model, axes, "macs")
    params = cost_of(model, axes, "params")
    full = sizes_of(axes)
    least = least_sizes(axes)

    return {
        "model": name,
        "gmacs": {
            "full": macs.of(full) / 1e9,
            "min": macs.of(least) / 1e9,
        },
        "params": {
            "full": params.of(full),
            "min": params.of(least),
        },
        "log10_architectures": _log10_architectures(axes, macs.alike),
        "axes": [_describe_axis(axis) for axis in axes],
    }


def _log10_architectures(axes: Sequence[Axis], alike: Sequence[Kind]) -> float:
    """Of the number of architectures, which itself may exceed what a float holds.

    Args:
        axes: What is searched.
        alike: Kinds of the axes, where blocks have to be alike; else empty.
    """
    if alike:
        return math.log10(sum(1 for _ in choices(alike, option_sizes(axes))))
    return sum(math.log10(axis.num_options) for axis in axes)


def _describe_axis(axis: Axis) -> dict[str, Any]:
    """An axis and its options."""
    groups, channels = axis.options
    return {
        "axis": axis.name,
        "kind": axis.kind,
        "size": list(axis.size),
        "options": {
            "groups": list(groups),
            "channels": list(channels),
        },
    }


def plan(config: StudyConfig, *, connect: bool = False) -> dict[str, Any]:
    """The space, the budgets, the steps, the memory, and the rungs in epochs, of a study.

    Args:
        config: The study.
        connect: Whether a data set may be downloaded, or a user's function called, to count its
            images.

    Raises:
        InputError: The model cannot be made or searched, a budget is out of reach, or the number of
            images is unknown.
    """
    parent = meta_parent(config)
    images, counted = _train_images(config, connect)
    search_steps = _steps(config.search, images)
    finetune_steps = 0
    if config.finetune is not None:
        finetune_steps = _steps(config.finetune, images)
    return describe_space(parent.model, parent.axes, config.model.name) | {
        "study": config.name,
        "trials": config.sweep.n_trials,
        "rungs": list(config.rungs(config.search.epochs)),
        "budgets": check_budgets(config, parent.model, parent.axes),
        "train_images": images,
        "train_images_counted": counted,
        "search_steps": search_steps,
        "finetune_steps": finetune_steps,
        "study_steps": (search_steps + finetune_steps) * config.sweep.n_trials,
        "memory_per_process_gb": memory(parent.model, config.search) / 1e9,
    }


def check_study(config: StudyConfig) -> Parent:
    """Check that trials of a study can run, before anything is spent.

    Returns:
        The parent, untrained.

    Raises:
        InputError: Parent or teacher have no weights, there is no classifier, or a budget is out of
            reach.
    """
    parent = check_weights(config)
    if not has_classifier(parent.model):
        raise InputError(
            f"model {config.model.name} has no classifier (num_classes 0), and a study compares "
            "accuracies; ofbnas compress takes it"
        )
    check_budgets(config, parent.model, parent.axes)
    return parent


def requested_budgets(config: StudyConfig, between: int = 0) -> list[BudgetConfig]:
    """The budgets that a study may request: its only one, or the ends of the range it sweeps.

    Args:
        config: The study.
        between: Number of further budgets inside a range, evenly spaced on a logarithmic scale.
    """
    for name, param in config.sweep.params.items():
        if name.startswith("search.budget."):
            values = param.ends()
            if between and not isinstance(param, ChoiceParam):
                spaced = np.geomspace(param.low, param.high, between + 2)
                values = sorted({round(value, 12) for value in spaced.tolist()})
            swept = [config.with_values({name: value}) for value in values]
            return [study.search.budget for study in swept]
    return [config.search.budget]


def check_budgets(
    config: StudyConfig, model: nn.Module, axes: Sequence[Axis]
) -> list[dict[str, Any]]:
    """Each budget's limit, and the least cost at which an architecture is within its tolerance.

    For a budget in time, parts of the model are measured here, and kept for the searches. What a
    block takes at its least sizes, as a share of what it takes at its largest, is then given, too.

    Raises:
        InputError: One is out of reach.
    """
    checked = []
    for requested in requested_budgets(config):
        metric = requested.metric()
        if metric == "latency" and next(model.parameters()).is_meta:
            model = untrained_parent(config).model  # only a real one takes time
        budget = budget_of(model, axes, requested)
        values: dict[str, Any] = {
            "metric": metric,
            "limit": budget.window.limit,
            "reached_from": budget.window.floor,
        }
        if isinstance(budget.cost, TimeCost):
            values["narrow_block"] = budget.cost.tables.narrow_block()
        checked.append(values)
    return checked


def measure(
    config: StudyConfig,
    data: Data,
    parent_state: Mapping[str, Tensor],
    callbacks: Sequence[Callback] = (),
) -> list[dict[str, Any]]:
    """The front that a study would begin from: its parent, compressed without training.

    Args:
        config: The study.
        data: On the device to measure on.
        parent_state: The trained parent's tensors.
        callbacks: Receive what happens.

    Returns:
        The networks at the ends of the budgets that the study may request and at some between, the
        smallest first, and then the parent: costs, quality on the validation images, and the
        seconds until the network was found.
    """
    started = time.monotonic()
    parent = parent_with(config, parent_state, data.device)
    budgets = requested_budgets(config, between=MEASURED_BETWEEN)
    free = config.with_values({"search.epochs": 0, "search.budget": budgets[0].model_dump()})
    found = compress(
        parent.model,
        data,
        free.search,
        budgets[1:],
        name=config.model.name,
        kwargs=parent.kwargs,
        axes=parent.axes,
        seed=config.seed,
        callbacks=callbacks,
    )
    measured = []
    for _, result in found:
        seconds = time.monotonic() - started
        point = _point(result.macs, result.params, result.subnet.model, parent, data)
        measured.append(point | {"seconds": seconds})
    sizes = sizes_of(parent.axes)
    macs = cost_of(parent.model, parent.axes, "macs").of(sizes)
    params = cost_of(parent.model, parent.axes, "params").of(sizes)
    whole = _point(macs, params, parent.model, parent, data) | {"seconds": 0.0}
    return [*reversed(measured), whole]


def _point(macs: int, params: int, model: nn.Module, parent: Parent, data: Data) -> dict[str, Any]:
    """A network's costs and quality, under the names of the table's columns."""
    costs = {"gmacs": macs / 1e9, "params": params}
    return costs | quality.on_validation(model, parent.model, data)


def memory(model: nn.Module, config: TrainConfig) -> int:
    """Bytes that a step of a search needs at least, without the overhead of the allocator.

    Args:
        model: The parent.
        config: Batch, accumulation and precision.
    """
    parameters = sum(parameter.numel() for parameter in model.parameters())
    per_parameter = BYTES_PER_PARAMETER
    if config.ema is not None:
        per_parameter += BYTES_OF_AVERAGE

    # What is kept is linear in the batch, so the difference leaves out the weights.
    of_two = _saved_bytes(model, 2)
    of_one = _saved_bytes(model, 1)
    per_image = float(of_two - of_one)
    if config.amp:
        per_image *= HALF_PRECISION
    images = math.ceil(config.batch_size / config.accumulate)
    return int(parameters * per_parameter + per_image * images)


def _saved_bytes(model: nn.Module, batch: int) -> int:
    """Bytes that a forward pass saves for the backward pass, weights included.

    It runs on the meta device, so nothing is computed or allocated.
    """
    tensors: dict[str, Tensor] = dict(model.named_parameters())
    tensors.update(model.named_buffers())
    on_meta = {}
    for name, tensor in tensors.items():
        copy = tensor.detach().to("meta")
        on_meta[name] = copy.requires_grad_(tensor.is_floating_point())
    images = torch.empty(batch, *input_size(model), device="meta")

    # Several saved tensors may be views of one storage, which is counted once.
    saved: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage()._cdata  # data_ptr() is 0 for all on the meta device
        saved[address] = tensor
        return tensor

    def unpack(tensor: Tensor) -> Tensor:
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        outputs = torch.func.functional_call(model, on_meta, (images,))
        outputs.sum()

    storages = [tensor.untyped_storage() for tensor in saved.values()]
    return sum(storage.nbytes() for storage in storages)


def _train_images(config: StudyConfig, connect: bool) -> tuple[int, bool]:
    """The number of training images.

    Returns:
        The number, and whether it was counted; otherwise the settings state it.

    Raises:
        InputError: They cannot be counted, and the settings do not state their number.
    """
    data = config.data
    if isinstance(data, SmallDataConfig):
        return data_of(config).train_images, True
    why_not = _why_not_counted(data, connect)
    if why_not is None:
        return data_of(config).train_images, True
    if data.train_images is None:
        raise InputError(f"{why_not}, or data.train_images to plan without the images")
    share = 1.0
    if isinstance(data, ImageDataConfig) and data.val_split is None:
        share -= data.val_share  # validation images are taken from the training images
    return round(data.train_images * share), False


def _why_not_counted(data: ImageDataConfig | OwnDataConfig, connect: bool) -> str | None:
    """Why the images of a data set cannot be counted, and what would help; None where they can."""
    if isinstance(data, OwnDataConfig):
        if connect:
            return None
        return f"data.name {data.name}: has to be called to count its images; give --connect"
    if may_download(data.name) and not connect:
        return (
            f"data.name {data.name}: may have to be downloaded to count its images; "
            "give --connect to allow that"
        )
    if data.path is not None and not data.path.exists():
        return f"data.path {data.path}: no such folder; give one"
    return None


def _steps(training: TrainConfig, images: int) -> int:
    """Optimizer steps of a training; the images that do not fill a batch are left out."""
    return training.epochs * max(1, images // training.batch_size)

"""What a study starts from: its parent and its teacher.

A parent without weights is trained once and then cached.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import resolve_data_config
from torch import Tensor, nn

from ofbnas.config import (
    DistillConfig,
    ModelConfig,
    RangeConfig,
    SpaceConfig,
    StudyConfig,
)
from ofbnas.errors import InputError, one_line
from ofbnas.files.cache import cache_folder
from ofbnas.models.axes import Axis, Shares, Space, input_size
from ofbnas.models.axes import axes as axes_of
from ofbnas.models.cost import cost_of, sizes_of
from ofbnas.models.create import create_parent, on_meta
from ofbnas.models.state_dict import load_weights_
from ofbnas.training.data import SIZES, Data
from ofbnas.training.events import Callback
from ofbnas.training.features import check_task, has_classifier
from ofbnas.training.pretrain import check_cache, load_or_train_
from ofbnas.training.recipe import weights_optimizer
from ofbnas.training.teacher import Normalisation, Teacher


@dataclass(frozen=True)
class Parent:
    """A study's trained parent.

    Attributes:
        model: In evaluation mode, on the CPU.
        kwargs: All arguments of timm.create_model it was made with.
        axes: What is searched.
    """

    model: nn.Module
    kwargs: Mapping[str, Any]
    axes: list[Axis]

    def costs(self) -> dict[str, float]:
        """What it costs at its full sizes: "gmacs" and "params"."""
        sizes = sizes_of(self.axes)
        macs = cost_of(self.model, self.axes, "macs").of(sizes)
        params = cost_of(self.model, self.axes, "params").of(sizes)
        return {"gmacs": macs / 1e9, "params": params}


def untrained_parent(config: StudyConfig) -> Parent:
    """The study's parent with fresh weights, and its search space.

    Raises:
        InputError: timm cannot make it, it does not take the data's images, or it cannot be
            searched with this space.
    """
    torch.manual_seed(config.seed)
    return _parent(config, create_parent(config.model.name, parent_kwargs(config)))


def meta_parent(config: StudyConfig) -> Parent:
    """The study's parent on the meta device, to look at its shapes and costs without taking memory.

    Raises:
        InputError: As `untrained_parent`.
    """
    return _parent(config, on_meta(config.model.name, parent_kwargs(config)).model)


def parent_kwargs(config: StudyConfig) -> dict[str, Any]:
    """All arguments of timm.create_model for the study's parent."""
    return {"num_classes": config.data.num_classes, **config.model.kwargs}


def _parent(config: StudyConfig, model: nn.Module) -> Parent:
    """A model as the study's parent.

    Raises:
        InputError: It does not take the data's images, or it cannot be searched with this space.
    """
    axes = axes_of(model, space_of(config.search_space))
    of_data = SIZES.get(config.data.name)  # None where images are resized to what the model takes
    of_model = input_size(model)
    if of_data is not None and of_model != of_data:
        raise InputError(
            f"model {config.model.name} takes images of {of_model} (channels, height, width), "
            f"data {config.data.name} has {of_data}: set model.kwargs in_chans and img_size"
        )
    return Parent(model.eval(), parent_kwargs(config), axes)


def space_of(config: str | SpaceConfig) -> Space:
    """The space of a configuration whose search_space file has been read."""
    if isinstance(config, str):
        raise ValueError(f"search_space {config} has not been read; use ofbnas.config.load_study")
    space: dict[str, Shares | Sequence[int] | bool] = {}
    for key, choice in config:
        if isinstance(choice, RangeConfig):
            space[key] = Shares(choice.low, choice.high, choice.step, choice.multiple_of)
        elif choice is not None:
            space[key] = choice
    return space


def trained_parent(config: StudyConfig, data: Data, callbacks: Sequence[Callback] = ()) -> Parent:
    """The study's parent with its weights.

    They come from its checkpoint or from timm; otherwise the parent is trained once and cached in
    the folder OFBNAS_CACHE, by default ~/.cache/ofbnas.

    Raises:
        InputError: The checkpoint cannot be read or does not fit the model.
    """
    parent = untrained_parent(config)
    if config.model.checkpoint is not None:
        load_weights_(parent.model, config.model.checkpoint)
        return parent
    if config.model.pretrained:
        return replace(parent, model=_from_hub(config.model.name, parent.kwargs))
    assert config.pretrain is not None  # checked by StudyConfig
    file = parent_cache(config)
    load_or_train_(
        parent.model, data, config.pretrain, seed=config.seed, file=file, callbacks=callbacks
    )
    return replace(parent, model=parent.model.cpu().eval())


def parent_with(config: StudyConfig, state: Mapping[str, Tensor], device: torch.device) -> Parent:
    """A study's parent with given tensors, on a device."""
    parent = untrained_parent(config)
    parent.model.load_state_dict(state)
    return replace(parent, model=parent.model.to(device).eval())


def check_weights(config: StudyConfig) -> Parent:
    """Check, before any time is spent, that parent and teachers have weights.

    A parent that the study trains has to fit into the cache. Optimizers are created, too: otherwise
    only the end of a search would reveal that timm lacks that of the fine-tuning.

    Returns:
        The parent, untrained.

    Raises:
        InputError: A file is missing or does not fit its model, the cache cannot be written or has
            no room, timm has no such optimizer, or a model without a classifier would learn labels.
    """
    finetune = config.finetune
    for distill in (config.search.distill, None if finetune is None else finetune.distill):
        if distill is not None and distill.teacher is not None:
            _teacher_model(distill.teacher, config.data.num_classes)
    parent = untrained_parent(config)
    if not has_classifier(parent.model):
        _check_without_labels(config, parent.model)
    for training in (config.pretrain, config.search, config.finetune):
        if training is not None:
            weights_optimizer(parent.model, training)
    if config.model.checkpoint is not None:
        load_weights_(parent.model, config.model.checkpoint)
    elif not config.model.pretrained:
        file = parent_cache(config)
        if not file.is_file():
            check_cache(parent.model, file)
    return parent


def _check_without_labels(config: StudyConfig, model: nn.Module) -> None:
    """Check that a study trains a model without a classifier by features alone.

    Raises:
        InputError: It would train it by labels.
    """
    if not config.model.pretrained and config.model.checkpoint is None:
        raise InputError(
            f"model {config.model.name} has no classifier (num_classes 0), so pretrain cannot train "
            "it; give it weights: model.pretrained or model.checkpoint"
        )
    if config.search.epochs:
        check_task(model, config.search.distill, "search")
    if config.finetune is not None:
        check_task(model, config.finetune.distill, "finetune")


def _from_hub(name: str, kwargs: Mapping[str, Any]) -> nn.Module:
    """timm's model with its pretrained weights.

    Raises:
        InputError: The model has none, or they could not be downloaded.
    """
    try:
        model: nn.Module = timm.create_model(name, pretrained=True, **kwargs)
    except (RuntimeError, OSError, ValueError) as error:
        reason = one_line(error, 200)
        raise InputError(
            f"model {name}: its pretrained weights could not be downloaded ({reason}); "
            "give model.checkpoint a file instead, for example "
            "--set model.pretrained=false --set model.checkpoint=deit.safetensors"
        ) from None
    return model.eval()


def teacher_of(config: DistillConfig | None, parent: nn.Module, data: Data) -> Teacher | None:
    """The teacher of a student: the parent, or the model that the configuration names.

    A model with timm's weights gets images normalised as in its own training; a model with a
    checkpoint gets them as the study normalises them.

    Raises:
        InputError: The teacher cannot be made.
    """
    if config is None:
        return None
    if config.teacher is None:
        return Teacher(parent, config)
    kwargs = _teacher_kwargs(config.teacher, data.num_classes)
    model = _teacher_model(config.teacher, data.num_classes).to(data.device)
    known: Any = getattr(model, "pretrained_cfg", {})
    size = resolve_data_config(dict(kwargs), pretrained_cfg=known)["input_size"]
    if not config.teacher.pretrained:
        return Teacher(model, config, size)
    ours = Normalisation(data.mean, data.std)
    theirs = Normalisation(known["mean"], known["std"])
    return Teacher(model, config, size, ours, theirs)


def _teacher_kwargs(config: ModelConfig, num_classes: int) -> dict[str, Any]:
    """All arguments of timm.create_model for a teacher."""
    return {"num_classes": num_classes, **config.kwargs}


def _teacher_model(config: ModelConfig, num_classes: int) -> nn.Module:
    """A teacher with its weights.

    Raises:
        InputError: It has no weights, or they cannot be read.
    """
    if not config.pretrained and config.checkpoint is None:
        raise InputError(
            f"distill.teacher {config.name} has no weights; give it pretrained or checkpoint"
        )
    return model_with_weights(config.name, _teacher_kwargs(config, num_classes), config.checkpoint)


def model_with_weights(name: str, kwargs: Mapping[str, Any], checkpoint: Path | None) -> nn.Module:
    """Any of timm's models with its weights, in evaluation mode.

    Args:
        name: timm's name of it.
        kwargs: All arguments of timm.create_model.
        checkpoint: The file of its weights; None for those that timm downloads.

    Raises:
        InputError: timm cannot make it, or its weights cannot be read or are of another model.
    """
    if checkpoint is None:
        on_meta(name, kwargs)  # finds invalid arguments before anything is downloaded
        return _from_hub(name, kwargs)
    model = create_parent(name, kwargs)
    load_weights_(model, checkpoint)
    return model.eval()


def parent_cache(config: StudyConfig) -> Path:
    """The cached file of a parent that studies train.

    Studies with the same model, data, pretraining, seed and version of torch share one file.
    """
    parts = config.model_dump(
        mode="json",
        include={"model", "data", "pretrain", "seed"},
        exclude={"pretrain": {"evaluate_every"}},  # which changes no weight
    )
    parts["torch"] = torch.__version__
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    return cache_folder() / "parents" / f"{key}.parent"

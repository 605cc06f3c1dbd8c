"""What a study starts from: its images, its parent (trained once where there are no weights), its teacher."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from timm.data import resolve_data_config
from torch import nn

from ofbnas.axes import Axis, Shares, Space, input_size
from ofbnas.axes import axes as axes_of
from ofbnas.config import DistillConfig, ImageDataConfig, ModelConfig, RangeConfig, SpaceConfig, StudyConfig
from ofbnas.create import create_parent
from ofbnas.data import SIZES, Data, load_data
from ofbnas.errors import InputError
from ofbnas.parallel import shard
from ofbnas.teacher import Normalisation, Teacher
from ofbnas.training import OnEpoch, fit


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


def untrained_parent(config: StudyConfig) -> Parent:
    """The study's parent with fresh weights, and its search space.

    Raises:
        InputError: timm cannot make it, it does not take the data's images, or cannot be searched so.
    """
    kwargs = {"num_classes": config.data.num_classes, **config.model.kwargs}
    torch.manual_seed(config.seed)
    model = create_parent(config.model.name, kwargs)
    axes = axes_of(model, space_of(config.search_space))
    image = SIZES.get(config.data.name)  # others are resized
    if image is not None and (takes := input_size(model)) != image:
        raise InputError(
            f"model {config.model.name} takes images of {takes} (channels, height, width), data {config.data.name} "
            f"has {image}: set model.kwargs in_chans and img_size"
        )
    return Parent(model.eval(), kwargs, axes)


def space_of(config: str | SpaceConfig) -> Space:
    """The space of a configuration whose search_space file has been read."""
    if isinstance(config, str):
        raise ValueError(f"search_space {config} has not been read; use ofbnas.config.load_study")
    choices = {key: choice for key, choice in config if choice is not None}
    return {
        key: Shares(choice.low, choice.high, choice.step) if isinstance(choice, RangeConfig) else choice
        for key, choice in choices.items()
    }


def trained_parent(config: StudyConfig, data: Data, on_epoch: OnEpoch | None = None) -> Parent:
    """The study's parent, from its checkpoint, from timm's weights, or trained once and then cached.

    The cache is the folder OFBNAS_CACHE, by default ~/.cache/ofbnas.

    Raises:
        InputError: The checkpoint cannot be read or does not fit.
    """
    parent = untrained_parent(config)
    if config.model.checkpoint is not None:
        _load_checkpoint(parent.model, config.model.checkpoint)
        return parent
    if config.model.pretrained:
        return replace(parent, model=_from_hub(config.model.name, parent.kwargs))
    assert config.pretrain is not None  # checked by StudyConfig
    cached = parent_cache(config)
    if cached.is_file():
        _load_checkpoint(parent.model, cached)
        return parent
    torch.manual_seed(config.seed)
    model = parent.model.to(data.device)
    fit(model, data, config.pretrain, seed=config.seed, on_epoch=on_epoch)
    parent = replace(parent, model=model.cpu())
    if shard().rank != 0:
        return parent
    cached.parent.mkdir(parents=True, exist_ok=True)
    beside = cached.with_suffix(f".{os.getpid()}.writing")
    save_file({name: tensor.contiguous() for name, tensor in parent.model.state_dict().items()}, beside)
    beside.replace(cached)
    return parent


def _from_hub(name: str, kwargs: Mapping[str, Any]) -> nn.Module:
    """timm's model with its pretrained weights.

    Raises:
        InputError: There are none, or they cannot be had.
    """
    try:
        made: nn.Module = timm.create_model(name, pretrained=True, **kwargs)
    except (RuntimeError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"model {name}: its pretrained weights cannot be had ({reason}); give model.checkpoint a file instead, "
            "for example --set model.pretrained=false --set model.checkpoint=deit.safetensors"
        ) from None
    return made.eval()


def data_of(config: StudyConfig) -> Data:
    """The study's images; those that are resized, as the model was trained for where the study does not say.

    Raises:
        InputError: They cannot be read.
    """
    settings = config.data.model_dump()
    if isinstance(config.data, ImageDataConfig):
        known: Any = timm.models.get_pretrained_cfg(config.model.name)
        wants = resolve_data_config(dict(config.model.kwargs), pretrained_cfg=known.to_dict() if known else {})
        settings |= {key: wants[key] for key in ("mean", "std", "interpolation", "crop_pct") if settings[key] is None}
        settings["image_size"] = wants["input_size"]
        if odd := [key for key in ("mean", "std") if len(settings[key]) != wants["input_size"][0]]:
            raise InputError(
                f"data.{odd[0]} has {len(settings[odd[0]])} values for {wants['input_size'][0]} channels: give one each"
            )
    return load_data(**settings)


def teacher_of(config: DistillConfig | None, parent: nn.Module, data: Data) -> Teacher | None:
    """Who the student learns from: the parent, or the model that the configuration names.

    Hub weights get images normalised as they were trained; a checkpoint gets them as the study has them.

    Raises:
        InputError: The teacher cannot be made.
    """
    if config is None or config.teacher is None:
        return None if config is None else Teacher(parent, config)
    wanted, kwargs = config.teacher, {"num_classes": data.num_classes, **config.teacher.kwargs}
    model = _model_of(wanted, kwargs).to(data.device)
    known: Any = getattr(model, "pretrained_cfg", {})
    size = resolve_data_config(dict(kwargs), pretrained_cfg=known)["input_size"]
    if not wanted.pretrained:
        return Teacher(model, config, size)
    return Teacher(model, config, size, Normalisation(data.mean, data.std), Normalisation(known["mean"], known["std"]))


def _model_of(config: ModelConfig, kwargs: Mapping[str, Any]) -> nn.Module:
    """A trained model.

    Raises:
        InputError: It has no weights, or they cannot be read.
    """
    if config.pretrained:
        return _from_hub(config.name, kwargs)
    if config.checkpoint is None:
        raise InputError(f"distill.teacher {config.name} has no weights; give it pretrained or checkpoint")
    model = create_parent(config.name, kwargs)
    _load_checkpoint(model, config.checkpoint)
    return model.eval()


def parent_cache(config: StudyConfig) -> Path:
    """Where the parent that this study trains is kept: equal model, data, training and seed share a file."""
    parts = config.model_dump(mode="json", include={"model", "data", "pretrain", "seed"})
    parts["torch"] = torch.__version__
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    return cache_folder() / "parents" / f"{key}.safetensors"


def cache_folder() -> Path:
    """The folder OFBNAS_CACHE, by default ~/.cache/ofbnas."""
    return Path(os.environ.get("OFBNAS_CACHE", Path.home() / ".cache" / "ofbnas"))


def _load_checkpoint(model: nn.Module, path: Path) -> None:
    """Load plain tensors into a model.

    Raises:
        InputError: The file is missing, is none, or does not fit the model.
    """
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
            state = state.get("state_dict", state.get("model", state)) if isinstance(state, dict) else state
        model.load_state_dict(state)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; model.checkpoint must name the parent's weights") from None
    except (SafetensorError, OSError, EOFError, RuntimeError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{path}: no weights of this parent ({' '.join(str(error).split())[:200]})") from None

"""The parent of a study: made by timm, and trained once where there are no weights for it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ofbnas import subnet as subnets
from ofbnas.axes import Axis, Shares, Space, input_size
from ofbnas.axes import axes as axes_of
from ofbnas.config import RangeConfig, SpaceConfig, StudyConfig
from ofbnas.data import KNOWN, Data
from ofbnas.errors import InputError
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
    num_classes, image = KNOWN[config.data.name]
    kwargs = {"num_classes": num_classes, **config.model.kwargs}
    torch.manual_seed(config.seed)
    model = subnets.create_parent(config.model.name, kwargs)
    axes = axes_of(model, space_of(config.search_space))
    if (takes := input_size(model)) != image:
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
        import timm

        model = timm.create_model(config.model.name, pretrained=True, **parent.kwargs)
        return Parent(model.eval(), parent.kwargs, parent.axes)
    assert config.pretrain is not None  # checked by StudyConfig
    cached = parent_cache(config)
    if cached.is_file():
        _load_checkpoint(parent.model, cached)
        return parent
    torch.manual_seed(config.seed)
    fit(parent.model, data, **config.pretrain.model_dump(), seed=config.seed, on_epoch=on_epoch)
    cached.parent.mkdir(parents=True, exist_ok=True)
    beside = cached.with_suffix(f".{os.getpid()}.writing")
    save_file({name: tensor.contiguous() for name, tensor in parent.model.state_dict().items()}, beside)
    beside.replace(cached)
    return parent


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

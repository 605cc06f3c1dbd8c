"""Arguments of timm's constructors, read from a model that was made with them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from torch import nn

LAYER_SCALE = 1e-5  # what timm's models start it from; the model has its trained values instead


def _side(sides: Any) -> Any:
    """A pair of equal sides as one number, as constructors take it."""
    height, width = sides
    return height if height == width else [height, width]


def _heads(model: Any) -> Any:
    """Heads of all blocks or, where there are stages, of each stage."""
    if hasattr(model, "layers"):
        return [layer.blocks[0].attn.num_heads for layer in model.layers]
    return model.blocks[0].attn.num_heads


def _mlp_ratio(model: Any) -> float:
    """Hidden units of an MLP per channel."""
    block = model.layers[0].blocks[0] if hasattr(model, "layers") else model.blocks[0]
    hidden_units: int = block.mlp.fc1.out_features
    channels: int = block.mlp.fc1.in_features
    return hidden_units / channels


# How each argument shows in a model; a model of which one does not hold lacks what is looked at.
READINGS: dict[str, Callable[[Any], Any]] = {
    "num_classes": lambda model: model.num_classes,
    "in_chans": lambda model: model.patch_embed.proj.in_channels,
    "img_size": lambda model: _side(model.patch_embed.img_size),
    "patch_size": lambda model: _side(model.patch_embed.patch_size),
    "window_size": lambda model: _side(model.layers[0].blocks[0].window_size),
    "embed_dim": lambda model: model.embed_dim,
    "depth": lambda model: len(model.blocks),
    "depths": lambda model: [len(layer.blocks) for layer in model.layers],
    "num_heads": _heads,
    "mlp_ratio": _mlp_ratio,
    "class_token": lambda model: model.cls_token is not None,
    "no_embed_class": lambda model: model.no_embed_class,
    "reg_tokens": lambda model: model.num_reg_tokens,
    "global_pool": lambda model: model.global_pool,
    "qkv_bias": lambda model: model.blocks[0].attn.qkv.bias is not None,
    "init_values": lambda model: LAYER_SCALE if hasattr(model.blocks[0].ls1, "gamma") else None,
}


def readable_arguments(model: nn.Module) -> dict[str, Any]:
    """The arguments that a timm model shows, as plain values.

    They need not be all: a model that is made of them has to be compared with this one.
    """
    arguments: dict[str, Any] = {}
    for name, read in READINGS.items():
        with suppress(AttributeError, TypeError, ValueError, LookupError):
            arguments[name] = read(model)
    return arguments

"""Plain attributes of timm's modules that hold a width, and how to compute each from an axis' size.

A forward pass reads some of them, so they have to follow when units are removed.
"""

from __future__ import annotations

import math

from ofbnas.models.axes.axis import Value


def groups(groups: int, channels: int) -> int:
    """The number of groups."""
    return groups


def channels(groups: int, channels: int) -> int:
    """The number of channels in a group."""
    return channels


def units(groups: int, channels: int) -> int:
    """The number of units."""
    return groups * channels


def inverse_root(groups: int, channels: int) -> float:
    """The factor 1 / sqrt(d) of attention's products, with d channels in a head."""
    return 1 / math.sqrt(channels)


# Attributes of attentions that hold their widths.
WIDTHS: dict[str, Value] = {
    "num_heads": groups,
    "num_kv_heads": groups,
    "heads": groups,
    "head_dim": channels,
    "attn_dim": units,
    "dim_out": units,
    "kv_dim": units,
    "scale": inverse_root,
}
# Attributes of a model that hold the width of its stream.
STREAM: dict[str, Value] = {
    "embed_dim": units,
    "num_features": units,
    "head_hidden_size": units,
}
# The same at its end alone, where stages have streams of their own.
LAST_STREAM: dict[str, Value] = {
    "num_features": units,
    "head_hidden_size": units,
}
# Attributes of a pooling by attention.
POOL: dict[str, Value] = {
    "num_heads": groups,
    "latent_dim": units,
    "out_features": units,
}

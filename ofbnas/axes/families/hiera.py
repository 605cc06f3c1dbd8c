"""Hiera: stages that begin by pooling queries; attention inside mask units, later over all places."""

from __future__ import annotations

import math
from typing import Any

from timm.models.hiera import Hiera, HieraBlock

from ofbnas.axes.axis import Axis
from ofbnas.axes.family import Family
from ofbnas.axes.parts import LAST_STREAM, Parts
from ofbnas.errors import InputError


def hiera_axes(parts: Parts) -> list[Axis]:
    """Each stage's embedding, then its blocks' attentions (heads x head size) and MLPs.

    A stage's first block reads the stage before and writes its own.
    """
    model = parts.module("")
    stem = parts.start("patch_embed.proj")
    stem += parts.along(["pos_embed"], 1 if model.pos_embed_win is not None else -1, masked=True)
    streams, branches = [stem + parts.along(["pos_embed_win"], 1, masked=True)], [list[Axis]()]
    tokens = math.prod(model.tokens_spatial_shape)
    for index, block in enumerate(model.blocks):
        place = f"blocks.{index}"
        parts.expect(place, HieraBlock)
        streams[-1] += [*parts.outputs(f"{place}.norm1"), *parts.inputs(f"{place}.attn.qkv")]
        if block.do_expand:
            if not parts.has(f"{place}.proj.weight"):
                raise InputError(f"Hiera cannot be searched: {place} widens without a projection, by pooling twice")
            streams[-1] += parts.inputs(f"{place}.proj")
            streams.append(parts.start(f"{place}.proj"))
            branches.append([])
        streams[-1] += [
            *parts.outputs(f"{place}.attn.proj", f"{place}.mlp.fc2", writes=True),
            *parts.outputs(f"{place}.norm2"),
            *parts.inputs(f"{place}.mlp.fc1"),
            *parts.vectors(f"{place}.ls1.gamma", f"{place}.ls2.gamma"),
        ]
        branches[-1] += [_attention(parts, f"{place}.attn", tokens), parts.mlp(f"{place}.mlp")]
        tokens //= block.attn.q_stride
    streams[-1] += [*parts.outputs("head.norm"), *parts.inputs("head.fc")]
    found = []
    for stage, (stream, rest) in enumerate(zip(streams, branches, strict=True)):
        last = stage == len(streams) - 1
        follows = parts.following("", **LAST_STREAM) if last else ()
        found += [parts.stream(stream, f"stages.{stage}.embed", follows), *rest]
    return found


def _attention(parts: Parts, name: str, tokens: int) -> Axis:
    """Heads and their channels; queries may be pooled, and each mask unit may be on its own."""
    attention: Any = parts.module(name)
    seen = attention.q_stride * attention.window_size if attention.use_mask_unit_attn else tokens
    return parts.attention(name, 2 * (tokens // attention.q_stride) * seen)


def _image_sides(model: Any) -> tuple[int, int]:
    rows, columns = _patch_grid(model)
    return rows * model.patch_stride[0], columns * model.patch_stride[1]


def _patch_grid(model: Any) -> tuple[int, int]:
    rows, columns = model.tokens_spatial_shape
    return rows, columns


FAMILY = Family(
    name="hiera",
    classes=(Hiera,),
    axes=hiera_axes,
    members="Hiera",
    limits="Hieras that widen without a projection cannot be searched.",
    free=("head.fc.bias",),
    image_sides=_image_sides,
    patch_grid=_patch_grid,
    merging=lambda model: model.q_stride[0] ** model.q_pool,
)

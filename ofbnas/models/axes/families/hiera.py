"""Hiera: stages that begin by pooling queries; attention in mask units, later over all places."""

from __future__ import annotations

import math
from typing import Any

from timm.models.hiera import Hiera, HieraBlock

from ofbnas.errors import InputError
from ofbnas.models.axes.attributes import LAST_STREAM
from ofbnas.models.axes.axis import Axis, Binding
from ofbnas.models.axes.branches import Zeros, gone_axis
from ofbnas.models.axes.family import Family
from ofbnas.models.axes.parts import Parts


def hiera_axes(parts: Parts) -> list[Axis]:
    """Each stage's embedding, then its blocks' attentions (heads x head size) and MLPs.

    A stage's first block reads the stage before and writes its own.
    """
    model = parts.module("")
    streams = [_stem(parts)]
    branches: list[list[Axis]] = [[]]
    tokens = math.prod(model.tokens_spatial_shape)
    for index, block_module in enumerate(model.blocks):
        block = f"blocks.{index}"
        attn = f"{block}.attn"
        mlp = f"{block}.mlp"
        passed_over = parts.passed_over(block)
        if passed_over:
            branches[-1] += passed_over
            continue
        parts.expect(block, HieraBlock)

        stream = streams[-1]
        stream += parts.outputs(f"{block}.norm1")
        stream += parts.inputs(f"{attn}.qkv")
        if block_module.do_expand:
            if not parts.has(f"{block}.proj.weight"):
                raise InputError(
                    f"Hiera cannot be searched: {block} widens without a projection, "
                    "by pooling twice"
                )
            stream += parts.inputs(f"{block}.proj")
            stream = parts.start(f"{block}.proj")
            streams.append(stream)
            branches.append([])
        stream += parts.outputs(f"{attn}.proj", f"{mlp}.fc2", writes=True)
        stream += parts.outputs(f"{block}.norm2")
        stream += parts.inputs(f"{mlp}.fc1")
        stream += parts.vectors(f"{block}.ls1.gamma", f"{block}.ls2.gamma")

        # Where queries are pooled, the attention is what makes their tokens fewer.
        attention = _attention(parts, attn, tokens, removable=not block_module.do_expand)
        branches[-1] += [attention, parts.mlp(mlp, removable=True)]
        if block_module.do_expand:
            tokens //= block_module.attn.q_stride  # fewer queries than tokens where they are pooled
    streams[-1] += parts.outputs("head.norm")
    streams[-1] += parts.inputs("head.fc")

    axes: list[Axis] = []
    last_stage = len(streams) - 1
    for stage, stream in enumerate(streams):
        follows = parts.following("", **LAST_STREAM) if stage == last_stage else ()
        axes.append(parts.stream(stream, f"stages.{stage}.embed", follows))
        axes += branches[stage]
    return axes


def _stem(parts: Parts) -> list[Binding]:
    """The beginning of the first stage's stream: patches and their positions."""
    model = parts.module("")
    # Positions in windows are maps, [1, channels, rows, columns]; others [1, places, channels].
    positions_dim = -1 if model.pos_embed_win is None else 1
    stem = parts.start("patch_embed.proj")
    stem += parts.along(["pos_embed"], positions_dim, masked=True)
    stem += parts.along(["pos_embed_win"], 1, masked=True)
    return stem


def _attention(parts: Parts, name: str, tokens: int, removable: bool) -> Axis:
    """Heads and their channels; queries may be pooled, and each mask unit may be on its own."""
    attention: Any = parts.module(name)
    if isinstance(attention, Zeros):
        return gone_axis(name)
    queries = tokens // attention.q_stride
    keys = tokens
    if attention.use_mask_unit_attn:
        keys = attention.q_stride * attention.window_size
    return parts.attention(name, products=2 * queries * keys, removable=removable)


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

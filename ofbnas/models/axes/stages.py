"""How the stages of Swin Transformers lie along axes: each has a stream of its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from ofbnas.models.axes.attributes import LAST_STREAM, groups, units
from ofbnas.models.axes.axis import Axis, Binding, Following
from ofbnas.models.axes.parts import Parts


class BlockOfHeads(NamedTuple):
    """A block whose attention is as wide as the stream, so that it goes with it.

    Attributes:
        bindings: What of it lies along the stream, without the attention's projections.
        products: Multiply-accumulates per unit and image of the attention's two products.
    """

    bindings: list[Binding]
    products: int


def axes_of_tied_stages(
    parts: Parts,
    stages: str,
    block_of_heads: Callable[[Parts, str], BlockOfHeads],
    *,
    norm_first: bool,
) -> list[Axis]:
    """For each stage its stream, which is made of the heads of its attentions, then its MLPs.

    Args:
        parts: The model's parts.
        stages: Name of the module that holds all stages.
        block_of_heads: What a block gives, by its name.
        norm_first: As for `stage_ends`.
    """
    axes: list[Axis] = []
    for index, stage in enumerate(parts.module(stages)):
        stream, follows = stage_ends(
            parts,
            stages,
            index,
            norm_first=norm_first,
        )
        mlps: list[Axis] = []
        products = 0
        for number in range(len(stage.blocks)):
            name = f"{stages}.{index}.blocks.{number}"
            block = block_of_heads(parts, name)
            stream += block.bindings
            stream += parts.projections(f"{name}.attn")
            follows += parts.following(f"{name}.attn", num_heads=groups)
            products += block.products
            mlps.append(parts.mlp(f"{name}.mlp", removable=True))

        embedding = parts.stream(
            stream,
            name=f"{stages}.{index}.embed",
            attributes=follows,
            heads=stage.blocks[0].attn.num_heads,
            products=products,
        )
        axes += [embedding, *mlps]
    return axes


def stage_ends(
    parts: Parts,
    stages: str,
    index: int,
    *,
    norm_first: bool,
) -> tuple[list[Binding], list[Following]]:
    """A stage's stream at its two ends: where it begins and where it is read.

    It begins at patches, or where four patches of the stage before are merged into one; it is read
    by the next merging, or by the head.

    Args:
        parts: The model's parts.
        stages: Name of the module that holds all stages.
        index: Number of the stage, from 0.
        norm_first: Whether a merging normalises what it reads; otherwise what it gives.

    Returns:
        Bindings, and attributes of the model that follow.
    """
    merging = f"{stages}.{index}.downsample"
    stream: list[Binding] = []
    follows: list[Following] = []
    if index == 0:
        stream += parts.start("patch_embed.proj", "patch_embed.norm")
        follows += parts.following("", embed_dim=units)
    elif norm_first:  # then the norm lies along the stream before
        stream += parts.start(f"{merging}.reduction")
    else:
        stream += parts.start(f"{merging}.reduction", f"{merging}.norm")

    next_merging = f"{stages}.{index + 1}.downsample"
    if parts.has(f"{next_merging}.reduction.weight"):
        stream += parts.inputs(f"{next_merging}.reduction", copies=4)
        if norm_first:
            stream += parts.outputs(f"{next_merging}.norm", copies=4)
    else:
        stream += parts.outputs("norm")
        stream += parts.inputs("head.fc")
        follows += parts.following("", **LAST_STREAM)
    return stream, follows


def window_products(
    window: tuple[int, int],
    resolution: tuple[int, int],
) -> int:
    """Multiply-accumulates per unit and image of attention in windows; the last are padded.

    In each window of n places, queries by keys take n^2 per unit, and weights by values as many.

    >>> window_products((7, 7), (14, 14)) == 2 * 4 * 49**2
    True
    """
    rows, columns = resolution
    height, width = window
    num_windows = math.ceil(rows / height) * math.ceil(columns / width)
    area = height * width
    return 2 * num_windows * area**2

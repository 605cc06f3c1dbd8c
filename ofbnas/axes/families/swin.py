"""Swin Transformer: one embedding for each stage, tied to the next by patch merging; attention in shifted windows."""

from __future__ import annotations

from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock, WindowAttention

from ofbnas.axes.axis import Axis
from ofbnas.axes.family import Family
from ofbnas.axes.parts import Parts, window_products


def swin_axes(parts: Parts) -> list[Axis]:
    """Each stage's embedding, then its blocks' attentions (heads x head size) and MLPs."""
    found = []
    for index, stage in enumerate(parts.module("layers")):
        stream, follows = parts.stage("layers", index, norm_first=True)
        branches = []
        for number, block in enumerate(stage.blocks):
            place = f"layers.{index}.blocks.{number}"
            parts.expect(place, SwinTransformerBlock)
            parts.expect(f"{place}.attn", WindowAttention)
            stream += parts.block(place)
            units_of = [
                *parts.projections(f"{place}.attn"),
                *parts.vectors(f"{place}.attn.relative_position_bias_table", per_group=True),
            ]
            products = window_products(block.window_size, block.input_resolution)
            branches += [parts.attention(f"{place}.attn", products, units_of), parts.mlp(f"{place}.mlp")]
        found += [parts.stream(stream, f"layers.{index}.embed", follows), *branches]
    return found


FAMILY = Family(
    name="swin",
    classes=(SwinTransformer,),
    axes=swin_axes,
    members="Swin Transformer",
    free=("head.fc.bias",),
    merging=lambda model: 2 ** (len(model.layers) - 1),
)

"""Swin Transformer: attention in windows; stages, each tied to the next by patch merging."""

from __future__ import annotations

from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock, WindowAttention

from ofbnas.models.axes.axis import Axis
from ofbnas.models.axes.family import Family
from ofbnas.models.axes.parts import Parts
from ofbnas.models.axes.stages import stage_ends, window_products


def swin_axes(parts: Parts) -> list[Axis]:
    """Each stage's embedding, then its blocks' attentions (heads x head size) and MLPs."""
    axes: list[Axis] = []
    for index, stage in enumerate(parts.module("layers")):
        stream, follows = stage_ends(parts, "layers", index, norm_first=True)
        branches: list[Axis] = []
        for number, block_module in enumerate(stage.blocks):
            block = f"layers.{index}.blocks.{number}"
            attn = f"{block}.attn"
            passed_over = parts.passed_over(block)
            if passed_over:
                branches += passed_over
                continue
            parts.expect(block, SwinTransformerBlock)
            parts.expect(attn, WindowAttention)
            stream += parts.block(block)

            positions = parts.vectors(f"{attn}.relative_position_bias_table", per_group=True)
            attention = parts.attention(
                attn,
                products=window_products(block_module.window_size, block_module.input_resolution),
                bindings=[*parts.projections(attn), *positions],
                removable=True,
            )
            branches += [attention, parts.mlp(f"{block}.mlp", removable=True)]
        axes.append(parts.stream(stream, f"layers.{index}.embed", follows))
        axes += branches
    return axes


FAMILY = Family(
    name="swin",
    classes=(SwinTransformer,),
    axes=swin_axes,
    members="Swin Transformer",
    free=("head.fc.bias",),
    merging=lambda model: 2 ** (len(model.layers) - 1),
)

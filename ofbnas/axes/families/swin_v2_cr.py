"""Swin Transformer V2 as Christoph Reich built it: extra norms, biases from an MLP over all pairs of a window."""

from __future__ import annotations

from timm.models.swin_transformer_v2_cr import (
    SwinTransformerV2Cr,
    SwinTransformerV2CrBlock,
    WindowMultiHeadAttention,
)

from ofbnas.axes.axis import Axis, groups
from ofbnas.axes.family import Family
from ofbnas.axes.parts import Parts, window_products


def swin_v2_cr_axes(parts: Parts) -> list[Axis]:
    """Each stage's embedding with the heads of its attentions, then its blocks' MLPs."""
    found = []
    for index, stage in enumerate(parts.module("stages")):
        stream, follows = parts.stage("stages", index, norm_first=True)
        places = [f"stages.{index}.blocks.{number}" for number in range(len(stage.blocks))]
        products = 0
        for place in places:
            block = parts.expect(place, SwinTransformerV2CrBlock)
            parts.expect(f"{place}.attn", WindowMultiHeadAttention)
            stream += [*parts.block(place, post_norm=True), *parts.projections(f"{place}.attn")]
            stream += parts.outputs(f"{place}.norm3")
            stream += parts.outputs(f"{place}.attn.meta_mlp.fc2", per_group=True)
            stream += parts.vectors(f"{place}.attn.logit_scale", per_group=True)
            follows += parts.following(f"{place}.attn", num_heads=groups)
            products += window_products(block.window_size, block.feat_size)
        heads = stage.blocks[0].attn.num_heads
        found.append(parts.stream(stream, f"stages.{index}.embed", follows, heads, products))
        found += [parts.mlp(f"{place}.mlp") for place in places]
    return found


FAMILY = Family(
    name="swin_v2_cr",
    classes=(SwinTransformerV2Cr,),
    axes=swin_v2_cr_axes,
    members="Swin Transformer V2 (CR)",
    limits="Attention takes its width for the stream's: a stage's embedding loses whole heads, in its blocks alike.",
    free=("head.fc.bias", "*.meta_mlp.fc1.*"),
    merging=lambda model: 2 ** (len(model.stages) - 1),
    channels_first=True,
)

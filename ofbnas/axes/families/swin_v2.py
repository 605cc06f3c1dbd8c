"""Swin Transformer V2: norms after the branches, attention by cosines, biases from a small MLP."""

from __future__ import annotations

from timm.models.swin_transformer_v2 import SwinTransformerV2, SwinTransformerV2Block, WindowAttention

from ofbnas.axes.axis import Axis, groups
from ofbnas.axes.family import Family
from ofbnas.axes.parts import Parts, window_products


def swin_v2_axes(parts: Parts) -> list[Axis]:
    """Each stage's embedding with the heads of its attentions, then its blocks' MLPs."""
    found = []
    for index, stage in enumerate(parts.module("layers")):
        stream, follows = parts.stage("layers", index, norm_first=False)
        places = [f"layers.{index}.blocks.{number}" for number in range(len(stage.blocks))]
        products = 0
        for place in places:
            block = parts.expect(place, SwinTransformerV2Block)
            parts.expect(f"{place}.attn", WindowAttention)
            stream += [*parts.block(place, post_norm=True), *parts.projections(f"{place}.attn")]
            stream += parts.outputs(f"{place}.attn.cpb_mlp.2", per_group=True)
            stream += parts.along([f"{place}.attn.logit_scale"], 0, per_group=True)
            follows += parts.following(f"{place}.attn", num_heads=groups)
            products += window_products(block.window_size, block.input_resolution)
        heads = stage.blocks[0].attn.num_heads
        found.append(parts.stream(stream, f"layers.{index}.embed", follows, heads, products))
        found += [parts.mlp(f"{place}.mlp") for place in places]
    return found


FAMILY = Family(
    name="swin_v2",
    classes=(SwinTransformerV2,),
    axes=swin_v2_axes,
    members="Swin Transformer V2",
    limits="Attention takes its width for the stream's: a stage's embedding loses whole heads, in its blocks alike.",
    free=("head.fc.bias", "*.cpb_mlp.0.*"),
    merging=lambda model: 2 ** (len(model.layers) - 1),
)

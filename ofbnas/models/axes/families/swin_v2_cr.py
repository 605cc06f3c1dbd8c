"""Swin Transformer V2 by Christoph Reich: extra norms, biases from an MLP over pairs of places."""

from __future__ import annotations

from timm.models.swin_transformer_v2_cr import (
    SwinTransformerV2Cr,
    SwinTransformerV2CrBlock,
    WindowMultiHeadAttention,
)

from ofbnas.models.axes.axis import Axis
from ofbnas.models.axes.family import Family
from ofbnas.models.axes.parts import Parts
from ofbnas.models.axes.stages import BlockOfHeads, axes_of_tied_stages, window_products


def swin_v2_cr_axes(parts: Parts) -> list[Axis]:
    """Each stage's embedding with the heads of its attentions, then its blocks' MLPs."""
    return axes_of_tied_stages(parts, "stages", _block, norm_first=True)


def _block(parts: Parts, block: str) -> BlockOfHeads:
    """What is particular to a block: a third norm, its MLP of positions, and a scale per head."""
    attn = f"{block}.attn"
    module = parts.expect(block, SwinTransformerV2CrBlock)
    parts.expect(attn, WindowMultiHeadAttention)
    third_norm = parts.outputs(f"{block}.norm3")
    biases = parts.outputs(f"{attn}.meta_mlp.fc2", per_group=True)
    scales = parts.vectors(f"{attn}.logit_scale", per_group=True)
    return BlockOfHeads(
        bindings=[*parts.block(block, post_norm=True), *third_norm, *biases, *scales],
        products=window_products(module.window_size, module.feat_size),
    )


FAMILY = Family(
    name="swin_v2_cr",
    classes=(SwinTransformerV2Cr,),
    axes=swin_v2_cr_axes,
    members="Swin Transformer V2 (CR)",
    limits="Attention is as wide as the stream: a stage's embedding loses whole heads, in all its "
    "blocks alike.",
    free=("head.fc.bias", "*.meta_mlp.fc1.*"),
    merging=lambda model: 2 ** (len(model.stages) - 1),
    channels_first=True,
)

"""Swin Transformer V2: norms after the branches, attention by cosines, biases from a small MLP."""

from __future__ import annotations

from timm.models.swin_transformer_v2 import (
    SwinTransformerV2,
    SwinTransformerV2Block,
    WindowAttention,
)

from ofbnas.models.axes.axis import Axis
from ofbnas.models.axes.family import Family
from ofbnas.models.axes.parts import Parts
from ofbnas.models.axes.stages import BlockOfHeads, axes_of_tied_stages, window_products


def swin_v2_axes(parts: Parts) -> list[Axis]:
    """Each stage's embedding with the heads of its attentions, then its blocks' MLPs."""
    return axes_of_tied_stages(parts, "layers", _block, norm_first=False)


def _block(parts: Parts, block: str) -> BlockOfHeads:
    """What is particular to a block: its MLP of positions, and a scale for each head's cosines."""
    attn = f"{block}.attn"
    module = parts.expect(block, SwinTransformerV2Block)
    parts.expect(attn, WindowAttention)
    biases = parts.outputs(f"{attn}.cpb_mlp.2", per_group=True)
    scales = parts.along([f"{attn}.logit_scale"], 0, per_group=True)
    return BlockOfHeads(
        bindings=[*parts.block(block, post_norm=True), *biases, *scales],
        products=window_products(module.window_size, module.input_resolution),
    )


FAMILY = Family(
    name="swin_v2",
    classes=(SwinTransformerV2,),
    axes=swin_v2_axes,
    members="Swin Transformer V2",
    limits="Attention is as wide as the stream: a stage's embedding loses whole heads, in all its "
    "blocks alike.",
    free=("head.fc.bias", "*.cpb_mlp.0.*"),
    merging=lambda model: 2 ** (len(model.layers) - 1),
)

"""CaiT: heads that talk to each other, and a class token that joins late."""

from __future__ import annotations

from timm.models.cait import Cait, LayerScaleBlock, LayerScaleBlockClassAttn

from ofbnas.axes.axis import Axis
from ofbnas.axes.family import Family
from ofbnas.axes.parts import Parts


def cait_axes(parts: Parts) -> list[Axis]:
    """The embedding and the attentions, which stay, and each block's MLP."""
    model = parts.module("")
    tokens = model.patch_embed.num_patches
    stream = parts.ends()
    branches = []
    for index in range(len(model.blocks)):
        place = f"blocks.{index}"
        parts.expect(place, LayerScaleBlock)
        stream += parts.block(place)
        attention = parts.attention(f"{place}.attn", 2 * tokens**2, searchable=(False, False))
        branches += [attention, parts.mlp(f"{place}.mlp")]
    for index in range(len(model.blocks_token_only)):
        place = f"blocks_token_only.{index}"
        parts.expect(place, LayerScaleBlockClassAttn)
        stream += [*parts.block(place), *parts.inputs(*(f"{place}.attn.{layer}" for layer in "qkv"))]
        units = [*parts.outputs(*(f"{place}.attn.{layer}" for layer in "qkv")), *parts.inputs(f"{place}.attn.proj")]
        attention = parts.attention(f"{place}.attn", 2 * (tokens + 1), units, searchable=(False, False))
        branches += [attention, parts.mlp(f"{place}.mlp")]
    return [parts.stream(stream, searchable=False), *branches]


FAMILY = Family(
    name="cait",
    classes=(Cait,),
    axes=cait_axes,
    members="CaiT",
    limits="Each head's scores are mixed from those of all heads, so attention stays, and with it the embedding, for "
    "whose width it takes its own.",
    free=("head.bias", "blocks.*.attn.proj_l.*", "blocks.*.attn.proj_w.*"),
)

"""BEiT and BEiT-2: a class token, biases of relative positions, of queries and of values."""

from __future__ import annotations

from timm.models.beit import Attention, Beit, Block

from ofbnas.models.axes.attributes import STREAM, groups
from ofbnas.models.axes.axis import Axis
from ofbnas.models.axes.family import Family
from ofbnas.models.axes.parts import Parts

TABLE = "relative_position_bias_table"


def beit_axes(parts: Parts) -> list[Axis]:
    """The embedding with the heads of all attentions, then each block's MLP."""
    model = parts.module("")
    tokens = model.patch_embed.num_patches + model.num_prefix_tokens
    stream = parts.ends()
    stream += parts.vectors(f"rel_pos_bias.{TABLE}", per_group=True)
    follows = list(parts.following("", **STREAM))
    mlps: list[Axis] = []
    for index in range(len(model.blocks)):
        block = f"blocks.{index}"
        attn = f"{block}.attn"
        parts.expect(block, Block)
        parts.expect(attn, Attention)
        stream += parts.block(block)
        stream += parts.projections(attn)
        stream += parts.vectors(f"{attn}.{TABLE}", per_group=True)
        follows += parts.following(attn, num_heads=groups)
        mlps.append(parts.mlp(f"{block}.mlp", removable=True))

    embedding = parts.stream(
        stream,
        attributes=follows,
        heads=model.blocks[0].attn.num_heads,
        products=2 * tokens**2 * len(mlps),
    )
    return [embedding, *mlps]


FAMILY = Family(
    name="beit",
    classes=(Beit,),
    axes=beit_axes,
    members="BEiT, BEiT-2",
    limits="Attention is as wide as the stream: the embedding loses whole heads, in all blocks "
    "alike.",
    free=("head.bias",),
)

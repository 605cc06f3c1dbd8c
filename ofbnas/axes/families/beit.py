"""BEiT and BEiT-2: a class token, biases of relative positions, biases of queries and values only."""

from __future__ import annotations

from timm.models.beit import Attention, Beit, Block

from ofbnas.axes.axis import Axis, groups
from ofbnas.axes.family import Family
from ofbnas.axes.parts import STREAM, Parts

TABLE = "relative_position_bias_table"


def beit_axes(parts: Parts) -> list[Axis]:
    """The embedding with the heads of all attentions, then each block's MLP."""
    model = parts.module("")
    tokens = model.patch_embed.num_patches + model.num_prefix_tokens
    stream = [*parts.ends(), *parts.vectors(f"rel_pos_bias.{TABLE}", per_group=True)]
    follows = [*parts.following("", **STREAM)]
    places = [f"blocks.{index}" for index in range(len(model.blocks))]
    for place in places:
        parts.expect(place, Block)
        parts.expect(f"{place}.attn", Attention)
        stream += [*parts.block(place), *parts.projections(f"{place}.attn")]
        stream += parts.vectors(f"{place}.attn.{TABLE}", per_group=True)
        follows += parts.following(f"{place}.attn", num_heads=groups)
    heads = model.blocks[0].attn.num_heads
    embedding = parts.stream(stream, attributes=follows, heads=heads, products=2 * tokens**2 * len(places))
    return [embedding, *(parts.mlp(f"{place}.mlp") for place in places)]


FAMILY = Family(
    name="beit",
    classes=(Beit,),
    axes=beit_axes,
    members="BEiT, BEiT-2",
    limits="Attention takes its width for the stream's: the embedding loses whole heads, in all blocks alike.",
    free=("head.bias",),
)

"""CaiT: heads that talk to each other, and a class token that joins late."""

from __future__ import annotations

from timm.models.cait import Cait, LayerScaleBlock, LayerScaleBlockClassAttn

from ofbnas.models.axes.axis import Axis
from ofbnas.models.axes.family import Family
from ofbnas.models.axes.parts import Parts


def cait_axes(parts: Parts) -> list[Axis]:
    """The embedding and the attentions, which stay, and each block's MLP."""
    model = parts.module("")
    tokens = model.patch_embed.num_patches
    stream = parts.ends()
    branches: list[Axis] = []
    for index in range(len(model.blocks)):
        block = f"blocks.{index}"
        parts.expect(block, LayerScaleBlock)
        stream += parts.block(block)
        attention = parts.attention(
            f"{block}.attn",
            products=2 * tokens**2,
            searchable=(False, False),
        )
        branches += [attention, parts.mlp(f"{block}.mlp", removable=True)]

    for index in range(len(model.blocks_token_only)):
        block = f"blocks_token_only.{index}"
        attn = f"{block}.attn"
        parts.expect(block, LayerScaleBlockClassAttn)
        projections = [f"{attn}.q", f"{attn}.k", f"{attn}.v"]
        stream += parts.block(block)
        stream += parts.inputs(*projections)
        attention = parts.attention(
            attn,
            # Only the class token has a query, over itself and all patches.
            products=2 * (tokens + 1),
            bindings=[*parts.outputs(*projections), *parts.inputs(f"{attn}.proj")],
            searchable=(False, False),
        )
        branches += [attention, parts.mlp(f"{block}.mlp", removable=True)]
    return [parts.stream(stream, searchable=False), *branches]


FAMILY = Family(
    name="cait",
    classes=(Cait,),
    axes=cait_axes,
    members="CaiT",
    limits="Each head's scores are mixed from those of all heads, so attention stays, and with it "
    "the embedding, which is as wide.",
    free=("head.bias", "blocks.*.attn.proj_l.*", "blocks.*.attn.proj_w.*"),
)

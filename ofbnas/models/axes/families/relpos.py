"""ViTs with relative positions, as biases in a table or from a small MLP."""

from __future__ import annotations

from functools import partial

from timm.layers import RelPosBias, RelPosMlp
from timm.models.vision_transformer_relpos import (
    RelPosAttention,
    RelPosBlock,
    ResPostRelPosBlock,
    VisionTransformerRelPos,
)

from ofbnas.models.axes.attributes import STREAM, groups
from ofbnas.models.axes.axis import Axis
from ofbnas.models.axes.family import Family
from ofbnas.models.axes.parts import Parts


def relpos_axes(parts: Parts) -> list[Axis]:
    """The embedding with the heads of all attentions, then each block's MLP."""
    model = parts.module("")
    tokens = model.patch_embed.num_patches + model.num_prefix_tokens
    stream = parts.ends()
    follows = list(parts.following("", **STREAM))
    mlps: list[Axis] = []
    positions: list[str] = []  # the modules that make biases of relative positions
    for index in range(len(model.blocks)):
        block = f"blocks.{index}"
        attn = f"{block}.attn"
        block_module = parts.expect(block, RelPosBlock, ResPostRelPosBlock)
        attention = parts.expect(attn, RelPosAttention)
        stream += parts.block(block, post_norm=type(block_module) is ResPostRelPosBlock)
        stream += parts.projections(attn)
        follows += parts.following(attn, num_heads=groups)
        if attention.rel_pos is not None:
            positions.append(f"{attn}.rel_pos")
        mlps.append(parts.mlp(f"{block}.mlp", removable=True))
    if model.shared_rel_pos is not None:
        positions.append("shared_rel_pos")

    for name in positions:
        module = parts.expect(name, RelPosBias, RelPosMlp)
        stream += parts.vectors(f"{name}.relative_position_bias_table", per_group=True)
        stream += parts.outputs(f"{name}.mlp.fc2", per_group=True)
        shape = partial(_with_heads, tuple(module.bias_shape[:-1]))
        follows += parts.following(name, num_heads=groups, bias_shape=shape)

    embedding = parts.stream(
        stream,
        attributes=follows,
        heads=model.blocks[0].attn.num_heads,
        products=2 * tokens**2 * len(mlps),
    )
    return [embedding, *mlps]


def _with_heads(
    before: tuple[int, ...],
    groups: int,
    channels: int,
) -> tuple[int, ...]:
    """The shape of biases, with one for each head at its end."""
    return (*before, groups)


FAMILY = Family(
    name="relpos",
    classes=(VisionTransformerRelPos,),
    axes=relpos_axes,
    members="ViTs with relative positions, and SRelPos",
    limits="Attention is as wide as the stream: the embedding loses whole heads, in all blocks "
    "alike.",
    free=("head.bias", "*.q_norm.*", "*.k_norm.*", "*rel_pos.mlp.fc1.*"),
)

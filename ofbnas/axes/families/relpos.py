"""ViTs with relative positions instead of absolute ones, as biases in a table or from a small MLP."""

from __future__ import annotations

from functools import partial

from timm.layers import RelPosBias, RelPosMlp
from timm.models.vision_transformer_relpos import (
    RelPosAttention,
    RelPosBlock,
    ResPostRelPosBlock,
    VisionTransformerRelPos,
)

from ofbnas.axes.axis import Axis, Binding, Value, groups
from ofbnas.axes.family import Family
from ofbnas.axes.parts import STREAM, Parts


def relpos_axes(parts: Parts) -> list[Axis]:
    """The embedding with the heads of all attentions, then each block's MLP."""
    model = parts.module("")
    tokens = model.patch_embed.num_patches + model.num_prefix_tokens
    stream = parts.ends()
    follows = [*parts.following("", **STREAM)]
    places = [f"blocks.{index}" for index in range(len(model.blocks))]
    for place in places:
        block = parts.expect(place, RelPosBlock, ResPostRelPosBlock)
        attention = parts.expect(f"{place}.attn", RelPosAttention)
        stream += [*parts.block(place, type(block) is ResPostRelPosBlock), *parts.projections(f"{place}.attn")]
        follows += parts.following(f"{place}.attn", num_heads=groups)
        if attention.rel_pos is not None:
            bindings, values = _positions(parts, f"{place}.attn.rel_pos")
            stream, follows = stream + bindings, follows + values
    if model.shared_rel_pos is not None:
        bindings, values = _positions(parts, "shared_rel_pos")
        stream, follows = stream + bindings, follows + values
    heads = model.blocks[0].attn.num_heads
    embedding = parts.stream(stream, attributes=follows, heads=heads, products=2 * tokens**2 * len(places))
    return [embedding, *(parts.mlp(f"{place}.mlp") for place in places)]


def _positions(parts: Parts, name: str) -> tuple[list[Binding], list[tuple[str, Value]]]:
    """Biases of relative positions, one for each head."""
    positions = parts.expect(name, RelPosBias, RelPosMlp)
    bindings = [
        *parts.vectors(f"{name}.relative_position_bias_table", per_group=True),
        *parts.outputs(f"{name}.mlp.fc2", per_group=True),
    ]
    shape = partial(_with_heads, tuple(positions.bias_shape[:-1]))
    return bindings, [*parts.following(name, num_heads=groups, bias_shape=shape)]


def _with_heads(before: tuple[int, ...], groups: int, channels: int) -> tuple[int, ...]:
    return (*before, groups)


FAMILY = Family(
    name="relpos",
    classes=(VisionTransformerRelPos,),
    axes=relpos_axes,
    members="ViTs with relative positions, and SRelPos",
    limits="Attention takes its width for the stream's: the embedding loses whole heads, in all blocks alike.",
    free=("head.bias", "*.q_norm.*", "*.k_norm.*", "*rel_pos.mlp.fc1.*"),
)

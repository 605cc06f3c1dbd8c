"""EVA, EVA-02, and the ViTs with rotary embeddings: DINOv3, Perception Encoder, ViT-RoPE."""

from __future__ import annotations

from timm.models.eva import AttentionRope, Eva, EvaAttention, EvaBlock, EvaBlockPostNorm

from ofbnas.axes.axis import Axis, groups
from ofbnas.axes.family import Family
from ofbnas.axes.parts import POOL, STREAM, Parts
from ofbnas.errors import InputError


def eva_axes(parts: Parts) -> list[Axis]:
    """The embedding, then each block's attention, where it has a width of its own, and MLP, and the pooling's MLP."""
    model = parts.module("")
    tokens = model.patch_embed.num_patches + model.num_prefix_tokens
    pool = getattr(model, "attn_pool", None)
    stream = parts.ends()
    follows = [*parts.following("", **STREAM)]
    branches, heads, products = [], {1}, 0
    for index in range(len(model.blocks)):
        place = f"blocks.{index}"
        post_norm = type(parts.expect(place, EvaBlock, EvaBlockPostNorm)) is EvaBlockPostNorm
        attention = parts.expect(f"{place}.attn", EvaAttention, AttentionRope)
        stream += parts.block(place, post_norm)
        if type(attention) is EvaAttention:
            stream += parts.projections(f"{place}.attn")
            follows += parts.following(f"{place}.attn", num_heads=groups)
            heads.add(attention.num_heads)
            products += 2 * tokens**2
        else:
            branches.append(_attention(parts, f"{place}.attn", 2 * tokens**2))
        branches.append(parts.mlp(f"{place}.mlp"))
    if pool is not None:
        stream += parts.pool()
        follows += parts.following("attn_pool", **POOL)
        heads.add(pool.num_heads)
        products += 2 * tokens * pool.latent_len
        branches.append(parts.mlp("attn_pool.mlp"))
    if len(heads) > 2:
        raise InputError(f"Eva cannot be searched: its attentions and its pooling split the stream as {sorted(heads)}")
    return [parts.stream(stream, attributes=follows, heads=max(heads), products=products), *branches]


def _attention(parts: Parts, name: str, products: int) -> Axis:
    """An attention with a width of its own."""
    model, attention = parts.module(""), parts.module(name)
    if getattr(attention, "num_kv_groups", 1) > 1:  # heads share keys and values
        queries = [*parts.outputs(f"{name}.q_proj", masked=True, query=0), *parts.inputs(f"{name}.proj")]
        return parts.attention(name, products, queries, searchable=(False, False))
    learned = getattr(model, "rope_mixed", False)  # rotations of each head, in one tensor for all blocks
    return parts.attention(name, products, searchable=(not learned, model.rope is None))


FAMILY = Family(
    name="eva",
    classes=(Eva,),
    axes=eva_axes,
    members="EVA, EVA-02, DINOv3, Perception Encoder, ViTs with rotary embeddings",
    limits="Rotations are made for one head size, so head sizes stay. EVA's own attention takes its width for the "
    "stream's: there the embedding loses whole heads, in all blocks alike. Rotations that are learned for each head, "
    "and keys that heads share, leave attention as it is.",
    free=(
        "head.bias",
        "*.q_norm.*",
        "*.k_norm.*",
        "rope.freqs",
        "blocks.*.attn.?_proj.bias",
        "blocks.*.attn.gate.bias",
    ),
)

"""EVA, EVA-02, and the ViTs with rotary embeddings: DINOv3, Perception Encoder, ViT-RoPE."""

from __future__ import annotations

from timm.models.eva import AttentionRope, Eva, EvaAttention, EvaBlock, EvaBlockPostNorm

from ofbnas.errors import InputError
from ofbnas.models.axes.attributes import POOL, STREAM, groups
from ofbnas.models.axes.axis import Axis
from ofbnas.models.axes.family import Family
from ofbnas.models.axes.parts import Parts


def eva_axes(parts: Parts) -> list[Axis]:
    """The embedding, then each block's attention and MLP, and last the pooling's MLP.

    An attention is an axis only if it has a width of its own.
    """
    model = parts.module("")
    tokens = model.patch_embed.num_patches + model.num_prefix_tokens
    attention_products = 2 * tokens**2
    stream = parts.ends()
    follows = list(parts.following("", **STREAM))
    branches: list[Axis] = []
    heads = {1}  # numbers of heads that the stream is split into
    products = 0
    for index in range(len(model.blocks)):
        block = f"blocks.{index}"
        attn = f"{block}.attn"
        passed_over = parts.passed_over(block)
        if passed_over:
            branches += passed_over
            continue
        block_module = parts.expect(block, EvaBlock, EvaBlockPostNorm)
        attention = parts.expect(attn, EvaAttention, AttentionRope)
        stream += parts.block(block, post_norm=type(block_module) is EvaBlockPostNorm)
        if type(attention) is EvaAttention:
            stream += parts.projections(attn)
            follows += parts.following(attn, num_heads=groups)
            heads.add(attention.num_heads)
            products += attention_products
        else:
            branches.append(_attention(parts, attn, attention_products))
        branches.append(parts.mlp(f"{block}.mlp", removable=True))

    pool = getattr(model, "attn_pool", None)
    if pool is not None:
        stream += parts.pool()
        follows += parts.following("attn_pool", **POOL)
        heads.add(pool.num_heads)
        products += 2 * tokens * pool.latent_len
        branches.append(parts.mlp("attn_pool.mlp"))
    if len(heads) > 2:
        raise InputError(
            "Eva cannot be searched: its attentions and its pooling split the stream as "
            f"{sorted(heads)}"
        )
    embedding = parts.stream(
        stream,
        attributes=follows,
        heads=max(heads),
        products=products,
    )
    return [embedding, *branches]


def _attention(parts: Parts, name: str, products: int) -> Axis:
    """An attention with a width of its own."""
    model = parts.module("")
    attention = parts.module(name)
    heads_share_keys = getattr(attention, "num_kv_groups", 1) > 1
    if heads_share_keys:
        queries = parts.outputs(f"{name}.q_proj", masked=True, query=0)
        readers = parts.inputs(f"{name}.proj")
        return parts.attention(
            name,
            products,
            bindings=[*queries, *readers],
            searchable=(False, False),
        )

    # Learned rotations are of each head, in one tensor for all blocks, so no head can go. Rotations
    # of any kind are made for one head size.
    learned_rotations = getattr(model, "rope_mixed", False)
    any_rotations = model.rope is not None
    return parts.attention(
        name,
        products,
        searchable=(not learned_rotations, not any_rotations),
        removable=True,
    )


FAMILY = Family(
    name="eva",
    classes=(Eva,),
    axes=eva_axes,
    members="EVA, EVA-02, DINOv3, Perception Encoder, ViTs with rotary embeddings",
    limits="Rotations are made for one head size, so head sizes stay. EVA's own attention is as "
    "wide as the stream: there the embedding loses whole heads, in all blocks alike. Attention "
    "stays as it is where rotations are learned for each head, or heads share keys.",
    free=(
        "head.bias",
        "*.q_norm.*",
        "*.k_norm.*",
        "rope.freqs",
        "blocks.*.attn.?_proj.bias",
        "blocks.*.attn.gate.bias",
    ),
)

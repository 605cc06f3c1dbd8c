"""ViT, DeiT, DeiT-3, DINOv2, CLIP and SigLIP towers, AIMv2, BEiT-3, hybrids, ViTamin."""

from __future__ import annotations

from collections import Counter

from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import (
    Attention,
    Block,
    ParallelThingsBlock,
    ResPostBlock,
    VisionTransformer,
)

from ofbnas.models.axes.attributes import POOL, STREAM
from ofbnas.models.axes.axis import Axis, Binding
from ofbnas.models.axes.family import Family, ReferenceCounts
from ofbnas.models.axes.parts import Parts


def vit_axes(parts: Parts) -> list[Axis]:
    """The embedding, each block's attention (heads x head size) and MLP, and the pooling's MLP."""
    model = parts.module("")
    tokens = model.patch_embed.num_patches + model.num_prefix_tokens
    stream = parts.ends()
    branches: list[Axis] = []
    for index in range(len(model.blocks)):
        block = f"blocks.{index}"
        if type(model.blocks[index]) is ParallelThingsBlock:
            axes, bindings = _parallel(parts, block, tokens)
            branches += axes
            stream += bindings
            continue
        passed_over = parts.passed_over(block)
        if passed_over:
            branches += passed_over
            continue
        block_module = parts.expect(block, Block, ResPostBlock)
        attn = f"{block}.attn"
        parts.expect(attn, Attention)
        branches.append(parts.attention(attn, products=2 * tokens**2, removable=True))
        branches.append(parts.mlp(f"{block}.mlp", removable=True))
        stream += parts.block(block, post_norm=type(block_module) is ResPostBlock)

    follows = parts.following("", **STREAM)
    pool = model.attn_pool
    if pool is None:
        # Without a projection, a backbone gives the patches as wide as they are.
        projected = parts.has("patch_embed.proj.weight")
        embedding = parts.stream(
            stream,
            attributes=follows,
            searchable=projected,
        )
        return [embedding, *branches]

    embedding = parts.stream(
        [*stream, *parts.pool()],
        attributes=(*follows, *parts.following("attn_pool", **POOL)),
        heads=pool.num_heads,
        products=2 * tokens * pool.latent_len,
    )
    if pool.mlp is not None:
        branches.append(parts.mlp("attn_pool.mlp"))
    return [embedding, *branches]


def _parallel(
    parts: Parts,
    block: str,
    tokens: int,
) -> tuple[list[Axis], list[Binding]]:
    """Several attentions side by side and then several MLPs, each with its norm."""
    axes: list[Axis] = []
    bindings: list[Binding] = []
    for name, _ in parts.module(block).named_modules():
        # Such as "blocks.0.attns.1.attn": the last word says what it is.
        branch = f"{block}.{name}"
        outer = branch.rpartition(".")[0]
        kind = branch.rpartition(".")[2]
        if kind == "attn":
            axes.append(parts.attention(branch, products=2 * tokens**2))
        elif kind in ("ffn", "mlp"):
            axes.append(parts.mlp(branch))
        else:
            continue
        bindings += parts.branch(branch)
        bindings += parts.outputs(f"{outer}.norm")
        bindings += parts.vectors(f"{outer}.ls.gamma")
    return axes, bindings


def reference_counts(model: VisionTransformer) -> ReferenceCounts:
    """How OFB's published formula counts: per patch, with biases, norms and softmax."""
    patches = model.patch_embed.num_patches
    tensors = Counter(
        {
            "patch_embed.proj.weight": patches,
            "head.weight": 1,
            "head_dist.weight": 1,
        }
    )
    for name, _ in model.blocks.named_parameters(prefix="blocks"):
        is_norm_bias = "norm" in name and name.endswith("bias")
        if not is_norm_bias:
            tensors[name] = patches

    products: Counter[str] = Counter()
    softmax: Counter[str] = Counter()
    for index in range(len(model.blocks)):
        attn = f"blocks.{index}.attn"
        # Queries by keys, and weights by values: patches^2 per unit each.
        products[attn] = 2 * patches**2
        # Softmax, with the scale before it: 6 patches^2 per head.
        softmax[attn] = 6 * patches**2
    return ReferenceCounts(tensors, products, softmax)


FAMILY = Family(
    name="vit",
    classes=(VisionTransformer, VisionTransformerDistilled),
    axes=vit_axes,
    members="ViT, DeiT (distilled too), DeiT-3, DINOv2, CLIP and SigLIP towers, AIMv2, BEiT-3, "
    "hybrids, ViTamin",
    limits="With queries and keys normalised in each head, head sizes stay. With pooling by "
    "attention, the embedding loses whole heads of the pooling. Behind a backbone without a "
    "projection the embedding stays. Blocks that compute attention and MLP from one projection, "
    "and differential attention, cannot be searched.",
    free=("head.bias", "head_dist.bias", "*.q_norm.*", "*.k_norm.*", "patch_embed.backbone.*"),
)

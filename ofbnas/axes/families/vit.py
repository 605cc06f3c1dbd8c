"""ViT, DeiT (distilled too), DeiT-3, DINOv2, registers, CLIP and SigLIP towers, AIMv2, BEiT-3, hybrids, ViTamin."""

from __future__ import annotations

from collections import Counter

from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Attention, Block, ParallelThingsBlock, ResPostBlock, VisionTransformer

from ofbnas.axes.axis import Axis, Binding
from ofbnas.axes.family import Family
from ofbnas.axes.parts import POOL, STREAM, Parts


def vit_axes(parts: Parts) -> list[Axis]:
    """The embedding, then each block's attention (heads x head size) and MLP, and the pooling's MLP."""
    model = parts.module("")
    tokens = model.patch_embed.num_patches + model.num_prefix_tokens
    pooled = model.attn_pool is not None
    stream = parts.ends()
    branches = []
    for index in range(len(model.blocks)):
        place = f"blocks.{index}"
        if type(model.blocks[index]) is ParallelThingsBlock:
            found, bindings = _parallel(parts, place, tokens)
            branches += found
            stream += bindings
            continue
        kind = type(parts.expect(place, Block, ResPostBlock))
        parts.expect(f"{place}.attn", Attention)
        branches += [parts.attention(f"{place}.attn", 2 * tokens**2), parts.mlp(f"{place}.mlp")]
        stream += parts.block(place, post_norm=kind is ResPostBlock)
    follows = parts.following("", **STREAM)
    if not pooled:
        whole = parts.has("patch_embed.proj.weight")  # otherwise a backbone gives the patches as they are
        return [parts.stream(stream, attributes=follows, searchable=whole), *branches]
    pool = model.attn_pool
    embedding = parts.stream(
        [*stream, *parts.pool()],
        attributes=(*follows, *parts.following("attn_pool", **POOL)),
        heads=pool.num_heads,
        products=2 * tokens * pool.latent_len,
    )
    return [embedding, *branches, *([parts.mlp("attn_pool.mlp")] if pool.mlp is not None else [])]


def _parallel(parts: Parts, place: str, tokens: int) -> tuple[list[Axis], list[Binding]]:
    """Several attentions side by side and then several MLPs, each with its norm."""
    axes, bindings = [], []
    for name, _ in parts.module(place).named_modules():
        branch, kind = f"{place}.{name}", name.rpartition(".")[2]
        if kind not in ("attn", "ffn", "mlp"):
            continue
        outer = branch.rpartition(".")[0]
        axes.append(parts.attention(branch, 2 * tokens**2) if kind == "attn" else parts.mlp(branch))
        bindings += [*parts.branch(branch), *parts.outputs(f"{outer}.norm"), *parts.vectors(f"{outer}.ls.gamma")]
    return axes, bindings


def reference_counts(model: VisionTransformer) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """How OFB's published formula counts multiply-accumulates: per patch, with biases, norms and softmax.

    Returns:
        How often each tensor counts, and what each axis adds per unit and per group; what is left out counts 0.
    """
    patches = model.patch_embed.num_patches
    tensors = Counter({"patch_embed.proj.weight": patches, "head.weight": 1, "head_dist.weight": 1})
    for name, _ in model.blocks.named_parameters(prefix="blocks"):
        if not ("norm" in name and name.endswith("bias")):
            tensors[name] = patches
    attentions = [f"blocks.{index}.attn" for index in range(len(model.blocks))]
    products = Counter(dict.fromkeys(attentions, 2 * patches**2))  # of queries and keys, of weights and values
    softmax = Counter(dict.fromkeys(attentions, 6 * patches**2))  # with the scale before it
    return tensors, products, softmax


FAMILY = Family(
    name="vit",
    classes=(VisionTransformer, VisionTransformerDistilled),
    axes=vit_axes,
    members="ViT, DeiT (distilled too), DeiT-3, DINOv2, CLIP and SigLIP towers, AIMv2, BEiT-3, hybrids, ViTamin",
    limits="With queries and keys normalised in each head, head sizes stay. With pooling by attention, the embedding "
    "loses whole heads of the pooling. Behind a backbone without a projection the embedding stays. Blocks that compute "
    "attention and MLP from one projection, and differential attention, cannot be searched.",
    free=("head.bias", "head_dist.bias", "*.q_norm.*", "*.k_norm.*", "patch_embed.backbone.*"),
)

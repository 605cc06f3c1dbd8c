"""The axes of timm's VisionTransformer: ViT, DeiT (distilled too), DeiT-3, registers, CLIP towers."""

from __future__ import annotations

from collections import Counter

from timm.layers import Mlp
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Attention, Block, VisionTransformer
from torch import nn

from ofbnas.axes.axis import Axis, Binding, channels, full, groups, inverse_root, units
from ofbnas.errors import InputError

CLASSES = (VisionTransformer, VisionTransformerDistilled)


def vit_axes(model: VisionTransformer) -> list[Axis]:
    """The embedding, then each block's attention (heads x head size) and MLP, each at full size only.

    Raises:
        InputError: A block, attention or MLP is not one of those this family is made of.
    """
    names = dict(model.named_parameters())
    tokens = model.patch_embed.num_patches + model.num_prefix_tokens
    attentions, mlps = [], []
    for index, block in enumerate(model.blocks):
        if type(block) is not Block or type(block.attn) is not Attention or type(block.mlp) is not Mlp:
            raise InputError(
                f"blocks.{index} of this {type(model).__name__} is a {type(block).__name__} of "
                f"{type(block.attn).__name__} and {type(block.mlp).__name__}; only Block of Attention and Mlp "
                "can be searched here"
            )
        attentions.append(_attention(f"blocks.{index}.attn", block.attn, tokens))
        mlps.append(_mlp(f"blocks.{index}.mlp", block.mlp, names))
    blocks = [axis for pair in zip(attentions, mlps, strict=True) for axis in pair]
    return [_embedding(model, names), *blocks]


def _embedding(model: VisionTransformer, names: dict[str, nn.Parameter]) -> Axis:
    """The residual stream; the bi-mask acts where it begins: patches, positions and prefix tokens."""
    stem = [
        Binding(name, dim, masked=True)
        for name, dim in {
            "patch_embed.proj.weight": 0,
            "patch_embed.proj.bias": 0,
            "cls_token": 2,
            "dist_token": 2,
            "reg_token": 2,
            "pos_embed": 2,
        }.items()
        if name in names
    ]
    readers = ["attn.qkv.weight", "mlp.fc1.weight"]
    writers = ["attn.proj.weight", "attn.proj.bias", "mlp.fc2.weight", "mlp.fc2.bias"]
    norms = ["norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "ls1.gamma", "ls2.gamma"]
    rest = [Binding(f"{norm}.{part}", 0) for norm in ("norm_pre", "norm", "fc_norm") for part in ("weight", "bias")]
    rest += [Binding("head.weight", 1), Binding("head_dist.weight", 1)]
    for index in range(len(model.blocks)):
        rest += [Binding(f"blocks.{index}.{name}", 1) for name in readers]
        rest += [Binding(f"blocks.{index}.{name}", 0, writes=True) for name in writers]
        rest += [Binding(f"blocks.{index}.{name}", 0) for name in norms]
    width = model.embed_dim
    return Axis(
        name="embed",
        kind="embed",
        size=(1, width),
        bindings=(*stem, *(binding for binding in rest if binding.tensor in names)),
        options=full(1, width),
        attributes=tuple((name, units) for name in ("embed_dim", "num_features", "head_hidden_size")),
    )


def _attention(name: str, attention: Attention, tokens: int) -> Axis:
    """Heads and their channels; q, k and v share one mask."""
    bindings = [
        Binding(f"{name}.qkv.weight", 0, copies=3, masked=True, query=0),
        Binding(f"{name}.proj.weight", 1),
    ]
    if attention.qkv.bias is not None:
        bindings.append(Binding(f"{name}.qkv.bias", 0, copies=3, masked=True, query=0))
    size = attention.num_heads, attention.head_dim
    return Axis(
        name=name,
        kind="attn",
        size=size,
        bindings=tuple(bindings),
        options=full(*size),
        attributes=(
            (f"{name}.num_heads", groups),
            (f"{name}.head_dim", channels),
            (f"{name}.attn_dim", units),
            (f"{name}.scale", inverse_root),
        ),
        products=2 * tokens * tokens,
    )


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


def _mlp(name: str, mlp: Mlp, names: dict[str, nn.Parameter]) -> Axis:
    """The hidden units, masked before the activation."""
    width = mlp.fc1.out_features
    bindings = [Binding(f"{name}.fc1.weight", 0, masked=True), Binding(f"{name}.fc2.weight", 1)]
    if f"{name}.fc1.bias" in names:
        bindings.append(Binding(f"{name}.fc1.bias", 0, masked=True))
    return Axis(name=name, kind="mlp", size=(1, width), bindings=tuple(bindings), options=full(1, width))

"""The axes of timm's Swin Transformer: one embedding for each stage, tied to the next by patch merging."""

from __future__ import annotations

from typing import Any

from timm.models.swin_transformer import SwinTransformer
from torch import nn

from ofbnas.axes.axis import Axis, Binding, full, groups, inverse_root, units

CLASSES = (SwinTransformer,)


def swin_axes(model: SwinTransformer) -> list[Axis]:
    """Each stage's embedding, then its blocks' attentions (heads x head size) and MLPs, all at full size only."""
    names = dict(model.named_parameters())
    found = []
    for index, stage in enumerate(model.layers):
        last = index == len(model.layers) - 1
        found.append(_embedding(index, stage, last, names))
        for number, block in enumerate(stage.blocks):
            place = f"layers.{index}.blocks.{number}"
            found += [_attention(f"{place}.attn", block, names), _mlp(f"{place}.mlp", block.mlp)]
    return found


def _embedding(index: int, stage: Any, last: bool, names: dict[str, nn.Parameter]) -> Axis:
    """A stage's residual stream; the bi-mask acts where it begins: patch embedding, or patch merging."""
    merge = f"layers.{index}.downsample"
    if index == 0:
        stem = [Binding(f"patch_embed.norm.{part}", 0, masked=True) for part in ("weight", "bias")]
        stem += [Binding(f"patch_embed.proj.{part}", 0) for part in ("weight", "bias")]
    else:
        stem = [Binding(f"{merge}.reduction.weight", 0, masked=True)]
    rest = []
    for number in range(len(stage.blocks)):
        block = f"layers.{index}.blocks.{number}"
        rest += [Binding(f"{block}.{name}.weight", 1) for name in ("attn.qkv", "mlp.fc1")]
        for name in ("attn.proj", "mlp.fc2"):
            rest += [Binding(f"{block}.{name}.{part}", 0, writes=True) for part in ("weight", "bias")]
        for name in ("norm1", "norm2"):
            rest += [Binding(f"{block}.{name}.{part}", 0) for part in ("weight", "bias")]
    if last:
        rest += [Binding("norm.weight", 0), Binding("norm.bias", 0), Binding("head.fc.weight", 1)]
    else:
        after = f"layers.{index + 1}.downsample"
        rest.append(Binding(f"{after}.reduction.weight", 1, copies=4))
        rest += [Binding(f"{after}.norm.{part}", 0, copies=4) for part in ("weight", "bias")]
    width = stage.blocks[0].norm1.weight.shape[0]
    attributes = [("num_features", units), ("head_hidden_size", units)] if last else []
    attributes += [("embed_dim", units)] if index == 0 else []
    return Axis(
        name=f"layers.{index}.embed",
        kind="embed",
        size=(1, width),
        bindings=tuple(binding for binding in (*stem, *rest) if binding.tensor in names),
        options=full(1, width),
        attributes=tuple(attributes),
    )


def _attention(name: str, block: Any, names: dict[str, nn.Parameter]) -> Axis:
    """Heads and their channels, with each head's bias for relative positions; q, k and v share one mask."""
    attention = block.attn
    heads = attention.num_heads
    size = heads, attention.qkv.weight.shape[0] // (3 * heads)
    bindings = [
        Binding(f"{name}.qkv.weight", 0, copies=3, masked=True, query=0),
        Binding(f"{name}.qkv.bias", 0, copies=3, masked=True, query=0),
        Binding(f"{name}.proj.weight", 1),
        Binding(f"{name}.relative_position_bias_table", 1, per_group=True),
    ]
    sides = zip(block.input_resolution, block.window_size, strict=True)
    rows, columns = (-(-extent // window) for extent, window in sides)  # windows, the last ones padded
    return Axis(
        name=name,
        kind="attn",
        size=size,
        bindings=tuple(binding for binding in bindings if binding.tensor in names),
        options=full(*size),
        attributes=((f"{name}.num_heads", groups), (f"{name}.scale", inverse_root)),
        products=2 * rows * columns * block.window_area**2,
    )


def _mlp(name: str, mlp: Any) -> Axis:
    """The hidden units, masked before the activation."""
    width = mlp.fc1.out_features
    bindings = (
        Binding(f"{name}.fc1.weight", 0, masked=True),
        Binding(f"{name}.fc1.bias", 0, masked=True),
        Binding(f"{name}.fc2.weight", 1),
    )
    return Axis(name=name, kind="mlp", size=(1, width), bindings=bindings, options=full(1, width))

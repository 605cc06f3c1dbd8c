"""What is known about the insides of timm's models: which units there are and which tensors follow them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from timm.layers import DropPath
from torch import nn

from ofbnas.axes import swin, vit
from ofbnas.axes.axis import Axis, Binding, all_bindings, check_coverage
from ofbnas.axes.space import DEFAULT, Shares, Space, with_options
from ofbnas.errors import InputError

__all__ = [
    "Axis",
    "Binding",
    "Shares",
    "Space",
    "all_bindings",
    "axes",
    "final_embedding",
    "final_grid",
    "input_size",
    "patch_grid",
    "reference_counts",
    "set_drop_path",
]

# Family: the exact classes it is stated for, the function that gives their axes, parameters no axis touches.
FAMILIES = [
    (vit.CLASSES, vit.vit_axes, ("head.bias", "head_dist.bias")),
    (swin.CLASSES, swin.swin_axes, ("head.fc.bias",)),
]


def axes(model: nn.Module, space: Space | None = None) -> list[Axis]:
    """The searchable axes of a timm model.

    Args:
        model: A timm Vision Transformer at its present widths.
        space: Options for "embed", "heads", "head_size" and "mlp"; by default OFB's space.

    Returns:
        One axis for the embedding, of each stage where there are several, then one for each block's attention and one
        for its MLP.

    Raises:
        InputError: The model is of no known family, or has tensors no axis is known for.
    """
    for classes, family, free in FAMILIES:
        if type(model) in classes:
            found = family(model)
            check_coverage(model, found, free)
            return with_options(found, DEFAULT if space is None else space)
    known = ", ".join(sorted(cls.__name__ for classes, _, _ in FAMILIES for cls in classes))
    raise InputError(f"{type(model).__name__} cannot be searched: expected one of timm's {known}")


def input_size(model: nn.Module) -> tuple[int, int, int]:
    """The images the model takes: (channels, height, width)."""
    patch_embed: Any = model.patch_embed
    height, width = patch_embed.img_size
    return patch_embed.proj.weight.shape[1], height, width


def patch_grid(model: nn.Module) -> tuple[int, int]:
    """Patches of an image: (rows, columns)."""
    patch_embed: Any = model.patch_embed
    rows, columns = patch_embed.grid_size
    return rows, columns


def reference_counts(model: nn.Module) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """OFB's published formula: how often each tensor counts, and what each axis adds per unit and per group.

    Raises:
        InputError: The formula is not stated for models of this family.
    """
    if isinstance(model, vit.CLASSES):
        return vit.reference_counts(model)
    raise InputError(f"OFB's formula is for DeiT, not for {type(model).__name__}: set budget.count to exact")


def final_grid(model: nn.Module) -> tuple[int, int]:
    """Places of the final features: (rows, columns); patches, unless stages have merged them."""
    rows, columns = patch_grid(model)
    merged = 2 ** (len(model.layers) - 1) if isinstance(model, swin.CLASSES) else 1
    return rows // merged, columns // merged


def final_embedding(axes: Sequence[Axis]) -> Axis:
    """The axis along which the final features lie."""
    return [axis for axis in axes if axis.kind == "embed"][-1]


def set_drop_path(model: nn.Module, rate: float) -> None:
    """Give a model's blocks stochastic depth, from 0 in the first to `rate` in the last, as timm does."""
    blocks = [module for module in model.modules() if any(name.startswith("drop_path") for name in module._modules)]
    for index, block in enumerate(blocks):
        share = rate * index / max(1, len(blocks) - 1)
        for name in [name for name in block._modules if name.startswith("drop_path")]:
            setattr(block, name, DropPath(share) if share else nn.Identity())


def check_sizes(parent: Sequence[Axis], sizes: dict[str, tuple[int, int]]) -> None:
    """Check that sizes name exactly the parent's axes and lie between 1 and the parent's own.

    Raises:
        InputError: They do not.
    """
    if set(sizes) != {axis.name for axis in parent}:
        odd = sorted(set(sizes) ^ {axis.name for axis in parent})
        raise InputError(f"architecture has other axes than the model: {', '.join(odd[:4])}")
    for axis in parent:
        if not all(1 <= size <= most for size, most in zip(sizes[axis.name], axis.size, strict=True)):
            raise InputError(f"architecture has {axis.name} at {sizes[axis.name]}, expected sizes up to {axis.size}")

"""What is known about the insides of timm's models: which units there are and which tensors follow them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from timm.layers import DropPath
from torch import Tensor, nn

from ofbnas.axes.axis import Axis, Binding, all_bindings, check_coverage
from ofbnas.axes.families import vit
from ofbnas.axes.family import Family, all_families, family_of
from ofbnas.axes.parts import Parts
from ofbnas.axes.space import DEFAULT, KEYS, Shares, Space, with_options
from ofbnas.errors import InputError

__all__ = [
    "KEYS",
    "Axis",
    "Binding",
    "Family",
    "Shares",
    "Space",
    "all_bindings",
    "all_families",
    "axes",
    "check_sizes",
    "family_of",
    "final_embedding",
    "final_grid",
    "input_size",
    "patch_grid",
    "patch_tokens",
    "reference_counts",
    "set_drop_path",
]


def axes(model: nn.Module, space: Space | None = None) -> list[Axis]:
    """The searchable axes of a timm model.

    Args:
        model: A timm Vision Transformer at its present widths.
        space: Options for "embed", "heads", "head_size" and "mlp"; by default OFB's space.

    Returns:
        One axis for the embedding, of each stage where there are several, then one for each block's attention, where
        it may have a width of its own, and one for its MLP.

    Raises:
        InputError: The model is of no known family, or has tensors no axis is known for.
    """
    family = family_of(model)
    found = family.axes(Parts(model))
    check_coverage(model, found, family.free)
    return with_options(found, DEFAULT if space is None else space)


def input_size(model: nn.Module) -> tuple[int, int, int]:
    """The images the model takes: (channels, height, width)."""
    channels = next(module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d))
    return channels, *family_of(model).image_sides(model)


def patch_grid(model: nn.Module) -> tuple[int, int]:
    """Patches of an image: (rows, columns)."""
    return family_of(model).patch_grid(model)


def final_grid(model: nn.Module) -> tuple[int, int]:
    """Places of the final features: (rows, columns); patches, unless stages have merged them."""
    family = family_of(model)
    rows, columns = family.patch_grid(model)
    merging = family.merging(model)
    return rows // merging, columns // merging


def patch_tokens(features: Tensor, channels_first: bool) -> Tensor:
    """Features as tokens, [batch, tokens, embedding], where a model may give a map.

    Args:
        features: Tokens, or a map.
        channels_first: Whether maps of the model's family are [batch, embedding, rows, columns].
    """
    if features.ndim == 3:
        return features
    return features.flatten(2).transpose(1, 2) if channels_first else features.flatten(1, 2)


def reference_counts(model: nn.Module) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """OFB's published formula: how often each tensor counts, and what each axis adds per unit and per group.

    Raises:
        InputError: The formula is not stated for models of this family.
    """
    if isinstance(model, vit.FAMILY.classes):
        return vit.reference_counts(model)
    raise InputError(f"OFB's formula is for DeiT, not for {type(model).__name__}: set budget.count to exact")


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

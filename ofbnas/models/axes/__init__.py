"""What is known about the insides of timm's models: units, and the tensors that follow them."""

from __future__ import annotations

from collections.abc import Sequence

from timm.layers import DropPath
from torch import Tensor, nn

from ofbnas.errors import InputError, one_line
from ofbnas.models.axes.axis import (
    GONE,
    Axis,
    Binding,
    Size,
    all_bindings,
    at_sizes,
    check_coverage,
    is_part,
    size_of,
)
from ofbnas.models.axes.branches import remove_branches_
from ofbnas.models.axes.families import vit
from ofbnas.models.axes.family import Family, ReferenceCounts, all_families, family_of
from ofbnas.models.axes.parts import Parts
from ofbnas.models.axes.space import DEFAULT, KEYS, Shares, Space, with_options

__all__ = [
    "GONE",
    "KEYS",
    "Axis",
    "Binding",
    "Family",
    "Shares",
    "Size",
    "Space",
    "all_bindings",
    "all_families",
    "at_sizes",
    "axes",
    "check_sizes",
    "family_of",
    "final_embedding",
    "final_grid",
    "input_size",
    "is_part",
    "patch_grid",
    "patch_tokens",
    "reference_counts",
    "remove_branches_",
    "set_drop_path",
    "size_of",
]


def axes(model: nn.Module, space: Space | None = None) -> list[Axis]:
    """The searchable axes of a timm model.

    Args:
        model: A timm Vision Transformer at its present widths.
        space: Options for "embed", "heads", "head_size" and "mlp"; by default OFB's space.

    Returns:
        One axis for the embedding, of each stage where there are several, then one for each block's
        attention, where it may have a width of its own, and one for its MLP.

    Raises:
        InputError: The model is of no known family, or has tensors no axis is known for.
    """
    family = family_of(model)
    try:
        model_axes = family.axes(Parts(model))
        input_size(model)
    except InputError:
        raise
    except (ArithmeticError, ValueError, LookupError, TypeError, AttributeError) as error:
        # Arguments from a stranger may build what the family's file does not expect.
        raise InputError(
            f"{type(model).__name__} cannot be searched: "
            f"its arguments build it in another way ({one_line(error)})"
        ) from None
    check_coverage(model, model_axes, family.free)
    return with_options(model_axes, DEFAULT if space is None else space)


def input_size(model: nn.Module) -> tuple[int, int, int]:
    """The images the model takes: (channels, height, width)."""
    convolutions = (module for module in model.modules() if isinstance(module, nn.Conv2d))
    first = next(convolutions)
    height, width = family_of(model).image_sides(model)
    return first.in_channels, height, width


def patch_grid(model: nn.Module) -> tuple[int, int]:
    """Patches of an image: (rows, columns)."""
    return family_of(model).patch_grid(model)


def final_grid(model: nn.Module) -> tuple[int, int]:
    """Places of the final features: (rows, columns); patches, unless stages have merged them.

    Where patches do not divide into places, the last place of a row or column has fewer of them.
    """
    family = family_of(model)
    rows, columns = family.patch_grid(model)
    merging = family.merging(model)
    return -(-rows // merging), -(-columns // merging)


def patch_tokens(features: Tensor, channels_first: bool) -> Tensor:
    """Features as tokens, [batch, tokens, embedding], where a model may give a map.

    Args:
        features: Tokens, or a map.
        channels_first: Whether maps of the model's family are [batch, embedding, rows, columns].
    """
    if features.ndim == 3:
        return features
    if channels_first:
        return features.flatten(2).transpose(1, 2)
    return features.flatten(1, 2)


def reference_counts(model: nn.Module) -> ReferenceCounts:
    """The counts of OFB's published formula.

    Raises:
        InputError: The formula is not stated for models of this family.
    """
    if isinstance(model, vit.FAMILY.classes):
        return vit.reference_counts(model)
    raise InputError(
        f"OFB's formula is for DeiT, not for {type(model).__name__}: set budget.count to exact"
    )


def final_embedding(axes: Sequence[Axis]) -> Axis:
    """The axis along which the final features lie."""
    embeddings = [axis for axis in axes if axis.kind == "embed"]
    return embeddings[-1]


def set_drop_path(model: nn.Module, rate: float) -> None:
    """Give blocks stochastic depth, from 0 in the first to `rate` in the last, as timm does."""
    blocks: list[tuple[nn.Module, list[str]]] = []
    for module in model.modules():
        names = [name for name in module._modules if name.startswith("drop_path")]
        if names:
            blocks.append((module, names))

    last = max(1, len(blocks) - 1)
    for index, (block, names) in enumerate(blocks):
        share = rate * index / last
        for name in names:
            drop_path = DropPath(share) if share else nn.Identity()
            setattr(block, name, drop_path)


def check_sizes(
    parent: Sequence[Axis],
    sizes: dict[str, tuple[int, int]],
) -> None:
    """Check that sizes name exactly the parent's axes, and are sizes that these may have.

    A size lies between 1 and the parent's own; a branch that its block can do without may be gone.

    Raises:
        InputError: They do not.
    """
    differing = sorted(set(sizes) ^ {axis.name for axis in parent})
    if differing:
        raise InputError(f"architecture has other axes than the model: {', '.join(differing[:4])}")
    for axis in parent:
        size = sizes[axis.name]
        groups, channels = size
        most_groups, most_channels = axis.size
        if size == GONE and axis.branch:
            continue
        if not (1 <= groups <= most_groups and 1 <= channels <= most_channels):
            raise InputError(
                f"architecture has {axis.name} at {size}, expected sizes up to {axis.size}"
            )

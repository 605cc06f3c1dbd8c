"""Physical removal of units: tensors by name in, smaller tensors by name out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ofbnas.axes import Axis, all_bindings

Kept = Mapping[str, Tensor]


def take(tensors: Mapping[str, Tensor], axes: Sequence[Axis], kept: Kept, power: int = 1) -> dict[str, Tensor]:
    """The tensors with only the kept units on each axis.

    When heads get narrower their query slices are multiplied by sqrt(new / old head size), because attention
    divides by the square root of the head size it finds: so dropping channels equals zeroing them.

    Args:
        tensors: Tensors by the model's parameter names; any subset of them. Gradients and their moments have the
            same names.
        axes: Axes at their present sizes.
        kept: Axis name to flat indices of units, [groups, channels]; an axis that is not named keeps all.
        power: How tensors scale with a parameter: 1 for weights, -1 for gradients, -2 for squared gradients.

    Returns:
        Detached tensors, copies where anything was removed.
    """
    taken = {name: tensor.detach() for name, tensor in tensors.items()}
    for axis in axes:
        if axis.name not in kept:
            continue
        units = kept[axis.name]
        rescale = (units.shape[1] / axis.size[1]) ** (power / 2)
        for binding in axis.bindings:
            if binding.tensor not in taken:
                continue
            present, left = (axis.size[0], units[:, 0] // axis.size[1]) if binding.per_group else (axis.units, units)
            copies = torch.arange(binding.copies, device=units.device)[:, None] * present + left.flatten()
            tensor = taken[binding.tensor].index_select(binding.dim, copies.flatten())
            if binding.query is not None and rescale != 1:
                tensor.narrow(binding.dim, binding.query * units.numel(), units.numel()).mul_(rescale)
            taken[binding.tensor] = tensor
    return taken


def load_(model: nn.Module, axes: Sequence[Axis], tensors: Mapping[str, Tensor]) -> None:
    """Give a model tensors of other widths, and let all that describes its widths follow.

    Every parameter is a new one, so an earlier loss or wrapper that still holds the old ones keeps working on them.

    Args:
        model: The model the axes were read from.
        axes: Its axes at the new sizes.
        tensors: A tensor for each of the model's parameters.
    """
    for name, parameter in list(model.named_parameters()):
        owner, _, leaf = name.rpartition(".")
        new = nn.Parameter(tensors[name].clone(), requires_grad=parameter.requires_grad)
        setattr(model.get_submodule(owner), leaf, new)
    for axis, binding in all_bindings(axes):
        owner, _, leaf = binding.tensor.rpartition(".")
        module = model.get_submodule(owner)
        if leaf in module._buffers:  # those that follow an axis are zeros, so the first will do
            setattr(module, leaf, getattr(module, leaf).narrow(binding.dim, 0, binding.length(axis.size)))
    for axis in axes:
        for path, value in axis.attributes:
            owner, _, leaf = path.rpartition(".")
            setattr(model.get_submodule(owner), leaf, value(*axis.size))
    for module in model.modules():
        if hasattr(module, "normalized_shape"):  # LayerNorm, RmsNorm
            module.normalized_shape = tuple(module.get_parameter("weight").shape)  # type: ignore[assignment]
        match module:
            case nn.Linear():
                module.out_features, module.in_features = module.weight.shape
            case nn.Conv2d():
                module.out_channels = module.weight.shape[0]


def shapes_at(
    shapes: Mapping[str, Sequence[int]], axes: Sequence[Axis], sizes: Mapping[str, tuple[int, int]]
) -> dict[str, tuple[int, ...]]:
    """The shapes that tensors have when each axis takes another size.

    Args:
        shapes: Shapes of tensors at the axes' present sizes.
        axes: The axes.
        sizes: Axis name to (groups, channels).
    """
    new = {name: list(shape) for name, shape in shapes.items()}
    for axis, binding in all_bindings(axes):
        if binding.tensor in new:
            new[binding.tensor][binding.dim] = binding.length(sizes[axis.name])
    return {name: tuple(shape) for name, shape in new.items()}

"""Physical removal of units: tensors by name in, smaller tensors by name out."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ofbnas.models.axes import Axis, Binding, all_bindings, at_sizes, is_part, remove_branches_
from ofbnas.models.axes.axis import Shape, parts_gone
from ofbnas.models.axes.features import set_feature_widths_

Kept = Mapping[str, Tensor]
Module = TypeVar("Module", bound=nn.Module)


def take(
    tensors: Mapping[str, Tensor],
    axes: Sequence[Axis],
    kept: Kept,
    power: int = 1,
) -> dict[str, Tensor]:
    """The tensors with only the kept units on each axis.

    When heads get narrower, from d to d' channels, their query slices are multiplied by
    sqrt(d' / d), because attention divides the products of queries and keys by the square root of
    the head size that it finds:

        (sqrt(d' / d) q) k / sqrt(d') = q k / sqrt(d)

    So dropping channels equals zeroing them.

    Args:
        tensors: Tensors by the names of the model's parameters, or some of them. Gradients and
            their moments have the same names.
        axes: Axes at their present sizes.
        kept: Axis name to flat indices of units, [groups, channels]; an axis that is not named
            keeps all.
        power: How tensors scale with a parameter: 1 for weights, -1 for gradients, -2 for squared
            gradients.

    Returns:
        Detached tensors, copies where anything was removed; none of branches that lose all units.
    """
    taken = {name: tensors[name].detach() for name in names_left(tensors, axes, kept)}
    for axis in axes:
        if axis.name not in kept:
            continue
        units = kept[axis.name]
        for binding in axis.bindings:
            if binding.tensor in taken:
                tensor = taken[binding.tensor]
                taken[binding.tensor] = take_slices(
                    tensor, binding.dim, binding, axis, units, power
                )
    return taken


def names_left(tensors: Iterable[str], axes: Sequence[Axis], kept: Kept) -> list[str]:
    """The names of tensors without those of branches that lose all of their units.

    Args:
        tensors: Names.
        axes: Axes at their present sizes.
        kept: As for `take`.
    """
    parts: set[str] = set()
    for axis in axes:
        if axis.name in kept and kept[axis.name].numel() == 0:
            parts.update(axis.branch)
    return [name for name in tensors if not is_part(name, parts)]


def take_slices(
    tensor: Tensor, dim: int, binding: Binding, axis: Axis, units: Tensor, power: int = 1
) -> Tensor:
    """The slices of a tensor that belong to the kept units of one axis; see `take`.

    Args:
        tensor: A parameter, or activations that a layer with this binding gives.
        dim: The dimension of `tensor` that is laid out as the binding says.
        binding: One of the axis.
        axis: At its present size.
        units: Flat indices of the units to keep, [groups, channels].
        power: As for `take`.
    """
    taken = tensor.index_select(dim, kept_slices(binding, axis, units))
    if binding.query is None:
        return taken
    query_scale = (units.shape[1] / axis.size[1]) ** (power / 2)
    if query_scale != 1:
        num_units = units.numel()
        queries = taken.narrow(dim, binding.query * num_units, num_units)
        queries.mul_(query_scale)  # in place, in the copy that index_select made
    return taken


def kept_slices(binding: Binding, axis: Axis, units: Tensor) -> Tensor:
    """Indices along a binding's dimension of the slices of kept units, copy by copy, [slices].

    Args:
        binding: A binding of the axis.
        axis: The axis at its present size.
        units: Flat indices of the units to keep, [groups, channels].
    """
    groups, channels = axis.size
    if binding.per_group:
        length = groups
        kept = units[:, 0] // channels
    else:
        length = axis.units
        kept = units.flatten()
    copies = torch.arange(binding.copies, device=units.device)
    starts = copies * length
    slices = starts[:, None] + kept  # [copies, kept]
    return slices.flatten()


def with_tensors(
    model: nn.Module,
    axes: Sequence[Axis],
    tensors: Mapping[str, Tensor],
) -> nn.Module:
    """A copy of a model with tensors of its own or of smaller widths."""
    copied = bare_copy(model)
    load_(copied, axes, tensors)
    return copied


def bare_copy(module: Module) -> Module:
    """A copy to be given new parameters: it shares the old ones instead of copying them."""
    # deepcopy looks in its memo first: what is recorded there as its own copy is shared.
    memo = {id(parameter): parameter for parameter in module.parameters()}
    return copy.deepcopy(module, memo)


def cut_to(
    model: nn.Module,
    axes: Sequence[Axis],
    sizes: Mapping[str, tuple[int, int]],
) -> nn.Module:
    """A copy of a model at other sizes, with the first units of each axis.

    Args:
        model: The model.
        axes: Its axes at their present sizes.
        sizes: Axis name to (groups, channels).
    """
    kept: dict[str, Tensor] = {}
    for axis in axes:
        groups, channels = sizes[axis.name]
        units = torch.arange(axis.units).view(axis.size)
        kept[axis.name] = units[:groups, :channels]
    tensors = take(dict(model.named_parameters()), axes, kept)
    return with_tensors(model, at_sizes(axes, sizes), tensors)


def load_(
    model: nn.Module,
    axes: Sequence[Axis],
    tensors: Mapping[str, Tensor],
) -> None:
    """Give a model tensors of other widths, and update all that describes its widths.

    Every parameter is replaced by a new one, so an earlier loss or wrapper that still holds the old
    ones keeps working on them.

    Args:
        model: The model the axes were read from.
        axes: Its axes at the new sizes.
        tensors: A tensor for each of the model's parameters that is left.
    """
    remove_branches_(model, axes)
    for name, parameter in list(model.named_parameters()):
        module, leaf = _owner(model, name)
        tensor = tensors[name].clone()
        new = nn.Parameter(tensor, requires_grad=parameter.requires_grad)
        setattr(module, leaf, new)

    for axis, binding in all_bindings(axes):
        module, leaf = _owner(model, binding.tensor)
        if leaf in module._buffers:
            # Buffers that follow an axis hold zeros only, so it does not matter which are kept.
            buffer = getattr(module, leaf)
            length = binding.length(axis.size)
            setattr(module, leaf, buffer.narrow(binding.dim, 0, length))

    for path, value in attributes_of(model, axes).items():
        module, leaf = _owner(model, path)
        setattr(module, leaf, value)
    set_feature_widths_(model, axes)


def _owner(model: nn.Module, path: str) -> tuple[nn.Module, str]:
    """The module that a dotted name leads to, and the name of its attribute."""
    *owner, leaf = path.split(".")
    return model.get_submodule(".".join(owner)), leaf


def attributes_of(model: nn.Module, axes: Iterable[Axis]) -> dict[str, Any]:
    """All plain attributes of a model's modules that hold its widths, by their dotted names.

    Args:
        model: A model whose tensors have the axes' sizes.
        axes: Its axes at their present sizes.
    """
    attributes: dict[str, Any] = {}
    for axis in axes:
        groups, channels = axis.size
        for path, value in axis.attributes:
            attributes[path] = value(groups, channels)
    for name, module in model.named_modules():
        if hasattr(module, "normalized_shape"):  # LayerNorm, RmsNorm
            attributes[f"{name}.normalized_shape"] = tuple(module.get_parameter("weight").shape)
        match module:
            case nn.Linear():
                attributes[f"{name}.out_features"] = module.weight.shape[0]
                attributes[f"{name}.in_features"] = module.weight.shape[1]
            case nn.Conv2d():
                attributes[f"{name}.out_channels"] = module.weight.shape[0]
    return attributes


def shapes_at(
    shapes: Mapping[str, Sequence[int]],
    axes: Sequence[Axis],
    sizes: Mapping[str, tuple[int, int]],
) -> dict[str, Shape]:
    """The shapes that tensors have when each axis takes another size.

    Args:
        shapes: Shapes of tensors at the axes' present sizes.
        axes: The axes.
        sizes: Axis name to (groups, channels).

    Returns:
        The shapes, without those of branches that are gone.

    >>> bindings = (Binding("fc1.weight", 0), Binding("fc2.weight", 1))
    >>> mlp = Axis("mlp", "mlp", (1, 8), bindings, options=((1,), (8,)))
    >>> shapes_at({"fc1.weight": (8, 4), "fc2.weight": (4, 8)}, [mlp], {"mlp": (1, 5)})
    {'fc1.weight': (5, 4), 'fc2.weight': (4, 5)}
    """
    resized = at_sizes(axes, sizes)
    parts = parts_gone(resized)
    new = {name: list(shape) for name, shape in shapes.items() if not is_part(name, parts)}
    for axis, binding in all_bindings(resized):
        if binding.tensor in new:
            shape = new[binding.tensor]
            shape[binding.dim] = binding.length(axis.size)
    return {name: tuple(shape) for name, shape in new.items()}

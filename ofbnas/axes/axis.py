"""What can be searched in a model, stated as bindings between units and slices of its tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

from torch import nn

from ofbnas.errors import InputError

Kind = Literal["embed", "attn", "mlp"]
Size = tuple[int, int]
Value = Callable[[int, int], Any]


@dataclass(frozen=True)
class Binding:
    """One dimension of one tensor that is laid out along an axis.

    Attributes:
        tensor: timm's name of the parameter.
        dim: The tensor's dimension; its length is `copies` times the axis' units, copy by copy.
        copies: How often the axis' units stand along `dim` (3 in a fused query-key-value projection).
        masked: Whether the bi-mask multiplies the slices; otherwise they only follow when units are removed.
        writes: Whether the slices write into the residual stream, where the embedding's mask may act too.
        query: The copy that holds attention queries. Attention divides their products by the square root of the
            head size, so when heads get narrower these slices are rescaled to keep the products.
        per_group: Whether there is one slice for each group (a head) instead of one for each unit.
    """

    tensor: str
    dim: int
    copies: int = 1
    masked: bool = False
    writes: bool = False
    query: int | None = None
    per_group: bool = False

    def length(self, size: Size) -> int:
        """Length of the dimension at a size of the axis."""
        return self.copies * (size[0] if self.per_group else size[0] * size[1])


@dataclass(frozen=True)
class Axis:
    """Something searchable: the embedding, one block's attention, or one block's MLP.

    An axis has `groups` times `channels` units. Groups are heads, of an attention or of a stream that attentions take
    their width from, and 1 elsewhere, so an MLP is treated as an attention with one head.

    Attributes:
        name: The module it belongs to, "blocks.0.attn", or "embed".
        kind: What it is.
        size: Present size, (groups, channels).
        bindings: All the slices that follow the axis.
        options: Sizes it may take, as (numbers of groups, numbers of channels), both ascending; any pair of them
            is an option.
        attributes: Plain attributes of modules that follow the size: dotted name and the function that gives its
            value for (groups, channels).
        searchable: Whether other numbers of groups, and of channels, make a model that timm's forward pass can run.
        products: Multiply-accumulates per unit and image beyond those of weights (attention's two products).
    """

    name: str
    kind: Kind
    size: Size
    bindings: tuple[Binding, ...]
    options: tuple[tuple[int, ...], tuple[int, ...]]
    attributes: tuple[tuple[str, Value], ...] = ()
    searchable: tuple[bool, bool] = (True, True)
    products: int = 0

    @property
    def units(self) -> int:
        """Number of units at the present size."""
        return self.size[0] * self.size[1]

    @property
    def searched(self) -> bool:
        """Whether there is anything to decide: an option other than the present size."""
        return self.options != ((self.size[0],), (self.size[1],))

    def searched_keys(self) -> list[str]:
        """The keys of a search space under which this axis has more than one option."""
        names = ("heads", "head_size") if self.kind == "attn" else (self.kind, self.kind)
        return [name for name, sizes in zip(names, self.options, strict=True) if len(sizes) > 1]

    def resized(self, size: Size) -> Axis:
        """The axis at another size."""
        return replace(self, size=size)

    def binding_also(self, *bindings: Binding) -> Axis:
        """The axis with more tensors that follow it."""
        return replace(self, bindings=(*self.bindings, *bindings))


def full(groups: int, channels: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The options of an axis that is not searched."""
    return (groups,), (channels,)


def check_coverage(model: nn.Module, axes: Sequence[Axis], free: Iterable[str] = ()) -> None:
    """Check that every parameter is bound by an axis, or declared free, and that bindings fit the tensors.

    Args:
        model: The model the axes describe.
        axes: Its axes at their present sizes.
        free: Names of parameters that no axis changes, with `*` for any part.

    Raises:
        InputError: A parameter is neither bound nor free, or a binding names a tensor or a length the model does
            not have, or the model keeps running statistics.
    """
    kind, parameters = type(model).__name__, dict(model.named_parameters())
    shapes = {name: tuple(tensor.shape) for name, tensor in (parameters | dict(model.named_buffers())).items()}
    for axis, binding in all_bindings(axes):
        shape = shapes.get(binding.tensor)
        if shape is None or shape[binding.dim] != binding.length(axis.size):
            raise InputError(
                f"axis {axis.name} expects {binding.length(axis.size)} slices along dimension {binding.dim} of "
                f"{binding.tensor}, the model has {shape}: this {kind} is built in another way"
            )
    bound, patterns = {binding.tensor for _, binding in all_bindings(axes)}, tuple(free)
    rest = [name for name in parameters if name not in bound]
    if unbound := [name for name in rest if not any(fnmatchcase(name, pattern) for pattern in patterns)]:
        raise InputError(
            f"{kind} cannot be searched: no axis is known for {', '.join(unbound[:8])}"
            f"{f' and {len(unbound) - 8} more tensors' if len(unbound) > 8 else ''}"
        )
    if running := [name for name in shapes if name.endswith("running_mean")]:
        raise InputError(
            f"{kind} cannot be searched: {running[0]} is a running statistic, which several processes would not keep "
            "in step"
        )


def all_bindings(axes: Iterable[Axis]) -> Iterator[tuple[Axis, Binding]]:
    """Every binding with its axis."""
    for axis in axes:
        for binding in axis.bindings:
            yield axis, binding


def groups(groups: int, channels: int) -> int:
    """The number of groups."""
    return groups


def channels(groups: int, channels: int) -> int:
    """The number of channels in a group."""
    return channels


def units(groups: int, channels: int) -> int:
    """The number of units."""
    return groups * channels


def inverse_root(groups: int, channels: int) -> float:
    """The factor of attention's products."""
    return 1 / math.sqrt(channels)

"""What can be searched in a model, stated as bindings between units and slices of its tensors."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import accumulate, product
from typing import Any, Literal

from torch import Tensor, nn

from ofbnas.errors import InputError

Kind = Literal["embed", "attn", "mlp"]
Size = tuple[int, int]  # (groups, channels)
Shape = tuple[int, ...]
Value = Callable[[int, int], Any]  # of (groups, channels)
Following = tuple[str, Value]  # an attribute's dotted name, and what computes its value
GONE: Size = (0, 0)  # of an attention or an MLP that is removed from its block


@dataclass(frozen=True)
class Binding:
    """One dimension of one tensor that is laid out along an axis.

    Attributes:
        tensor: timm's name of the parameter.
        dim: The tensor's dimension; its length is `copies` times the axis' units, copy by copy.
        copies: Number of times that the axis' units occur along `dim` (3 in a fused
            query-key-value projection).
        masked: Whether the bi-mask multiplies the slices; otherwise they only follow when units are
            removed.
        writes: Whether the slices write into the residual stream, where the embedding's mask may
            act too.
        query: The copy that holds attention queries. Attention divides their products by the square
            root of the head size, so when heads get narrower these slices are rescaled to keep the
            products.
        per_group: Whether there is one slice for each group (a head) instead of one for each unit.

    The rows of a fused projection of queries, keys and values, with 4 heads of 16 channels:

    >>> Binding("blocks.0.attn.qkv.weight", 0, copies=3, masked=True, query=0).length((4, 16))
    192
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
        groups, channels = size
        if self.per_group:
            return self.copies * groups
        return self.copies * groups * channels


@dataclass(frozen=True)
class Axis:
    """Something searchable: the embedding, one block's attention, or one block's MLP.

    An axis has `groups` times `channels` units. Groups are heads, of an attention or of a stream
    that attentions take their width from, and 1 elsewhere, so an MLP is treated as an attention
    with one head.

    Attributes:
        name: The module it belongs to, "blocks.0.attn", or "embed".
        kind: What it is.
        size: Present size, (groups, channels).
        bindings: All the slices that follow the axis.
        options: Sizes it may take, as (numbers of groups, numbers of channels), both ascending; any
            pair of them is an option, and all pairs without units are one: `GONE`.
        attributes: Plain attributes of modules that follow the size: dotted name and the function
            that gives its value for (groups, channels).
        searchable: Whether other numbers of groups, and of channels, make a model that timm's
            forward pass can run.
        products: Multiply-accumulates per unit and image beyond those of weights (attention's two
            products).
        branch: Names of the modules and parameters that serve this axis alone, as the norm before an
            attention and the scale behind it: they go with its last unit. Empty where timm's
            forward pass needs the axis.
        alike: Whether all blocks have to take the same sizes, with heads that are together as wide as
            the embedding.
    """

    name: str
    kind: Kind
    size: Size
    bindings: tuple[Binding, ...]
    options: tuple[tuple[int, ...], tuple[int, ...]]
    attributes: tuple[Following, ...] = ()
    searchable: tuple[bool, bool] = (True, True)
    products: int = 0
    branch: tuple[str, ...] = ()
    alike: bool = False

    def __repr__(self) -> str:
        groups, channels = self.size
        size = f"{groups} x {channels}" if groups > 1 else str(channels)
        return f"Axis({self.name}: {size}, {self.num_options} options)"

    @property
    def units(self) -> int:
        """Number of units at the present size."""
        groups, channels = self.size
        return groups * channels

    @property
    def gone(self) -> bool:
        """Whether no unit is left, so that its branch is removed from the model."""
        return self.size == GONE

    @property
    def searched(self) -> bool:
        """Whether there is anything to decide: an option other than the present size."""
        return self.options != full(*self.size)

    @property
    def num_options(self) -> int:
        """Number of sizes it may take."""
        group_options, channel_options = self.options
        num_groups = sum(number > 0 for number in group_options)
        num_channels = sum(number > 0 for number in channel_options)
        may_go = 0 in group_options or 0 in channel_options
        return num_groups * num_channels + may_go

    def sizes(self) -> list[Size]:
        """All sizes it may take, each once."""
        pairs = product(*self.options)
        return list(dict.fromkeys(size_of(groups, channels) for groups, channels in pairs))

    def least_size(self) -> Size:
        """The smallest size it may take."""
        group_options, channel_options = self.options
        return size_of(group_options[0], channel_options[0])

    def searched_keys(self) -> list[str]:
        """The keys of a search space under which this axis has more than one option."""
        group_options, channel_options = self.options
        keys: list[str] = []
        if len(group_options) > 1:
            keys.append("heads" if self.kind == "attn" else self.kind)
        if len(channel_options) > 1:
            keys.append("head_size" if self.kind == "attn" else self.kind)
        return keys

    def resized(self, size: Size) -> Axis:
        """The axis at another size."""
        return replace(self, size=size)

    def without(self, parts: Container[str]) -> Axis:
        """The axis without what it says of modules and parameters that are gone."""
        bindings = [binding for binding in self.bindings if not is_part(binding.tensor, parts)]
        attributes = [follows for follows in self.attributes if not is_part(follows[0], parts)]
        return replace(self, bindings=tuple(bindings), attributes=tuple(attributes))

    def binding_also(self, *bindings: Binding) -> Axis:
        """The axis with more tensors that follow it."""
        return replace(self, bindings=(*self.bindings, *bindings))


def full(groups: int, channels: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The options of an axis that is not searched: its own size only."""
    return (groups,), (channels,)


def size_of(groups: int, channels: int) -> Size:
    """A size as (groups, channels); all that have no units are the same, `GONE`.

    >>> size_of(3, 16), size_of(0, 16), size_of(1, 0)
    ((3, 16), (0, 0), (0, 0))
    """
    return (groups, channels) if groups and channels else GONE


def at_sizes(axes: Iterable[Axis], sizes: Mapping[str, Size]) -> list[Axis]:
    """The axes at other sizes, without what they say of branches that are gone then.

    Args:
        axes: The axes.
        sizes: Axis name to (groups, channels); an axis that is not named keeps its size.
    """
    resized = [axis.resized(sizes.get(axis.name, axis.size)) for axis in axes]
    parts = parts_gone(resized)
    if not parts:
        return resized
    return [axis.without(parts) for axis in resized]


def is_part(name: str, parts: Container[str]) -> bool:
    """Whether a dotted name is one of some modules or parameters, or lies in one of them.

    >>> is_part("blocks.1.attn.qkv", {"blocks.1.attn"}), is_part("blocks.11", {"blocks.1"})
    (True, False)
    """
    return any(prefix in parts for prefix in prefixes(name))


def prefixes(name: str) -> list[str]:
    """A dotted name and those of all that it lies in, the outermost first.

    >>> prefixes("blocks.1.attn")
    ['blocks', 'blocks.1', 'blocks.1.attn']
    """
    return list(accumulate(name.split("."), lambda outer, inner: f"{outer}.{inner}"))


def parts_gone(axes: Iterable[Axis]) -> set[str]:
    """The names of the modules and parameters that are gone with axes without units."""
    return {part for axis in axes if axis.gone for part in axis.branch}


def check_coverage(
    model: nn.Module,
    axes: Sequence[Axis],
    free: Iterable[str] = (),
) -> None:
    """Check that bindings fit the tensors, and that every parameter is bound or declared free.

    Args:
        model: The model the axes describe.
        axes: Its axes at their present sizes.
        free: Names of parameters that no axis changes, with `*` for any part.

    Raises:
        InputError: A parameter is neither bound nor free, or a binding names a tensor or a length
            the model does not have, or the model keeps running statistics.
    """
    kind = type(model).__name__
    parameters = dict(model.named_parameters())
    shapes = shapes_of(parameters | dict(model.named_buffers()))
    for axis, binding in all_bindings(axes):
        shape = shapes.get(binding.tensor)
        length = binding.length(axis.size)
        if shape is None or shape[binding.dim] != length:
            raise InputError(
                f"axis {axis.name} expects {length} slices along dimension {binding.dim} of "
                f"{binding.tensor}, the model has {shape}: this {kind} is built in another way"
            )

    bound = {binding.tensor for _, binding in all_bindings(axes)}
    patterns = tuple(free)
    unknown: list[str] = []
    for name in parameters:
        is_free = any(fnmatchcase(name, pattern) for pattern in patterns)
        if name not in bound and not is_free:
            unknown.append(name)
    if unknown:
        raise InputError(f"{kind} cannot be searched: no axis is known for {listed(unknown, 8)}")

    running = [name for name in shapes if name.endswith("running_mean")]
    if running:
        raise InputError(
            f"{kind} cannot be searched: {running[0]} is a running statistic, "
            "which several processes would not keep in step"
        )


def listed(tensors: Sequence[str], most: int) -> str:
    """Names of tensors for a message, at most so many of them.

    >>> listed(["fc1.weight", "fc1.bias", "fc2.weight"], most=1)
    'fc1.weight and 2 more tensors'
    """
    text = ", ".join(tensors[:most])
    if len(tensors) > most:
        text += f" and {len(tensors) - most} more tensors"
    return text


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, Shape]:
    """The shapes of tensors by name."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def all_bindings(axes: Iterable[Axis]) -> Iterator[tuple[Axis, Binding]]:
    """Every binding with its axis."""
    for axis in axes:
        for binding in axis.bindings:
            yield axis, binding

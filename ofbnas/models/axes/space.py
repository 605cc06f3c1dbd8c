"""A search space: the sizes that the axes of each kind may take."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ofbnas.config.spacing import MAX_OPTIONS, count, spaced
from ofbnas.errors import InputError
from ofbnas.models.axes.axis import Axis, Size

KEYS = ("embed", "heads", "head_size", "mlp")
ALIKE = "alike"


@dataclass(frozen=True)
class Shares:
    """Evenly spaced shares of the model's own size, both ends included.

    Attributes:
        low: Smallest share; 0 removes a branch from its block, where that can do without it.
        high: Largest share, at most 1.
        step: Distance between shares.
        multiple_of: What sizes are rounded to multiples of, as processors compute some widths
            faster than others. The model's own size stays as it is.

    Raises:
        InputError: They are not shares, or there are too many of them.
    """

    low: float
    high: float
    step: float
    multiple_of: int = 1

    def __post_init__(self) -> None:
        ordered = 0 <= self.low <= self.high <= 1 and self.high > 0
        if not (ordered and self.step > 0 and self.multiple_of >= 1):
            raise InputError(
                f"{self}: expected 0 <= low <= high <= 1, high and step above 0, and multiple_of "
                "from 1"
            )
        num_options = count(self.low, self.high, self.step)
        if num_options > MAX_OPTIONS:
            raise InputError(
                f"{self}: gives {num_options:,} sizes, expected at most {MAX_OPTIONS:,}; "
                "use a larger step"
            )

    def of(self, size: int, unit: int = 1, removable: bool = False) -> tuple[int, ...]:
        """The sizes these shares of `size` give, rounded to whole numbers or multiples, each once.

        Args:
            size: The model's own size.
            unit: How many channels one of it is, where `multiple_of` counts these.
            removable: Whether the axis may go; otherwise a share of 0 is left out.

        >>> Shares(low=0.5, high=1, step=0.125).of(12)
        (6, 8, 9, 10, 12)
        >>> Shares(low=0.25, high=1, step=0.25, multiple_of=16).of(100)
        (32, 48, 80, 100)
        """
        multiple = self.multiple_of // math.gcd(self.multiple_of, unit)
        least = min(multiple, size)  # an axis keeps at least one unit
        most = max(least, size - size % multiple)
        sizes: set[int] = set()
        for share in spaced(self.low, self.high, self.step):
            if math.isclose(share, 1):
                sizes.add(size)
                continue
            if share == 0:
                if removable:
                    sizes.add(0)
                continue
            rounded = multiple * round(share * size / multiple)
            sizes.add(min(max(least, rounded), most))
        return tuple(sorted(sizes)) or (size,)  # empty if 0 is the only share


Choice = Shares | Sequence[int]
Space = Mapping[str, Choice | bool]  # a choice for each of KEYS, and whether blocks are `ALIKE`

# The space of OFB (arXiv 2403.15835): heads one by one instead of in twos.
DEFAULT: Space = {
    "embed": Shares(1 / 2, 1, 1 / 32),
    "heads": Shares(1 / 64, 1, 1 / 64),
    "head_size": Shares(1 / 4, 1, 1 / 8),
    "mlp": Shares(1 / 4, 1, 1 / 8),
}


def with_options(axes: Sequence[Axis], space: Space) -> list[Axis]:
    """The axes with the options the space gives them; a key the space lacks is not searched.

    Args:
        axes: Axes at the sizes of the model.
        space: "embed", "heads", "head_size", "mlp" to shares of the model's size, or to explicit
            sizes. With "alike", all blocks take the same sizes, and the embedding those of all heads
            together.

    Raises:
        InputError: An explicit size is above the model's own, or below 1 where a block cannot do
            without the axis; or blocks are to be alike, and the model's are not.
    """
    choices = {key: choice for key, choice in space.items() if not isinstance(choice, bool)}
    unknown = sorted(key for key in space if key not in (KEYS if key in choices else (ALIKE,)))
    if unknown:
        raise InputError(
            f"search space has {', '.join(unknown)}, expected some of {', '.join(KEYS)}, and whether "
            f"blocks are {ALIKE}"
        )
    if space.get(ALIKE):
        return _alike(axes, choices)
    for key in ("embed", "head_size"):
        choice = choices.get(key)
        if isinstance(choice, Shares) and choice.low == 0:
            raise InputError(
                f"search space gives {key} shares from 0, but only heads and mlp may be removed: "
                "set low above 0"
            )
    # Of a branch that is gone, there is nothing to choose.
    return [axis if axis.gone else replace(axis, options=_options(axis, choices)) for axis in axes]


def _alike(axes: Sequence[Axis], choices: Mapping[str, Choice]) -> list[Axis]:
    """The axes of a model whose blocks are alike, and stay so: timm makes such from its arguments.

    Raises:
        InputError: The model's blocks are not alike, or the space has an embedding of its own.
    """
    if "embed" in choices:
        raise InputError(
            "search space gives embed sizes of its own, but where blocks are alike it is as wide as "
            "all heads together: leave embed out"
        )
    sizes: dict[str, set[Size]] = {"embed": set(), "attn": set(), "mlp": set()}
    for axis in axes:
        sizes[axis.kind].add(axis.size)
    of_attentions = {(1, heads * channels) for heads, channels in sizes["attn"]}
    if any(len(found) != 1 for found in sizes.values()) or of_attentions != sizes["embed"]:
        raise InputError(
            "search space asks for blocks that are alike, with heads as wide as the embedding, but "
            "this model's are not: set alike to false"
        )

    searched = []
    for axis in axes:
        # A block of timm's own has both branches.
        own = replace(axis, branch=())
        searched.append(replace(axis, options=_options(own, choices), alike=True))
    heads, head_sizes = next(axis.options for axis in searched if axis.kind == "attn")
    widths = {number * channels for number in heads for channels in head_sizes}
    embedding = ((1,), tuple(sorted(widths)))
    return [replace(axis, options=embedding) if axis.kind == "embed" else axis for axis in searched]


def _options(
    axis: Axis,
    space: Mapping[str, Choice],
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The numbers of groups and of channels."""
    groups, channels = axis.size
    groups_searchable, channels_searchable = axis.searchable
    group_options: tuple[int, ...] = (groups,)
    channel_options: tuple[int, ...] = (channels,)
    if axis.kind == "attn":
        if groups_searchable:
            group_options = _sizes(axis, space, "heads", groups)
        if channels_searchable:
            channel_options = _sizes(axis, space, "head_size", channels)
    elif groups_searchable and axis.kind == "embed":
        # The embedding is made of heads: explicit sizes count channels, options whole heads.
        group_options = _sizes(
            axis,
            space,
            "embed",
            groups,
            unit=channels,
        )
    elif channels_searchable:
        channel_options = _sizes(axis, space, axis.kind, channels)
    return group_options, channel_options


def _sizes(
    axis: Axis,
    space: Mapping[str, Choice],
    key: str,
    size: int,
    unit: int = 1,
) -> tuple[int, ...]:
    """The sizes that a space allows where the model has `size`.

    Args:
        axis: The axis, for messages.
        space: The search space.
        key: Key of the space.
        size: The model's own size.
        unit: What explicit sizes are multiples of, in channels; the sizes returned count in it.
    """
    choice = space.get(key)
    if choice is None:
        return (size,)
    removable = bool(axis.branch) and key in ("heads", "mlp")
    if isinstance(choice, Shares):
        return choice.of(size, unit, removable)
    if len(choice) > MAX_OPTIONS:
        raise InputError(
            f"search space gives {key} {len(choice):,} sizes, expected at most {MAX_OPTIONS:,}"
        )

    explicit = sorted(set(choice))
    largest = size * unit
    least = 0 if removable else 1
    if not removable and 0 in explicit:
        raise InputError(
            f"search space gives {key} the size 0, but {axis.name} of this model cannot be "
            f"removed: list sizes from 1 to {largest}, or give shares"
        )
    if not explicit or explicit[0] < least or explicit[-1] > largest:
        sizes = str(explicit)
        if len(explicit) > 8:
            sizes = f"{explicit[0]} to {explicit[-1]}"
        raise InputError(
            f"search space gives {key} the sizes {sizes}, but {axis.name} of this model has "
            f"{largest}: list sizes from {least} to {largest}, or give shares"
        )
    not_multiples = [number for number in explicit if number % unit]
    if not_multiples:
        raise InputError(
            f"search space gives {key} the size {not_multiples[0]}, but {axis.name} of this model "
            f"is made of heads of {unit}: list multiples of {unit}, or give shares"
        )
    return tuple(number // unit for number in explicit)

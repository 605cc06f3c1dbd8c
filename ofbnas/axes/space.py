"""A search space: the sizes that the axes of each kind may take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ofbnas.axes.axis import Axis
from ofbnas.errors import InputError

KEYS = ("embed", "heads", "head_size", "mlp")


@dataclass(frozen=True)
class Shares:
    """Evenly spaced shares of the model's own size, both ends included.

    Attributes:
        low: Smallest share, above 0.
        high: Largest share, at most 1.
        step: Distance between shares.
    """

    low: float
    high: float
    step: float

    def of(self, size: int) -> tuple[int, ...]:
        """The sizes these shares of `size` give, rounded to whole numbers, each once."""
        count = int((self.high - self.low) / self.step + 1e-9) + 1
        return tuple(sorted({max(1, round((self.low + k * self.step) * size)) for k in range(count)}))


Space = Mapping[str, "Shares | Sequence[int]"]

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
        space: "embed", "heads", "head_size", "mlp" to shares of the model's size, or to explicit sizes.

    Raises:
        InputError: An explicit size is below 1 or above the model's own.
    """
    if unknown := sorted(set(space) - set(KEYS)):
        raise InputError(f"search space has {', '.join(unknown)}, expected some of {', '.join(KEYS)}")
    return [replace(axis, options=_options(axis, space)) for axis in axes]


def _options(axis: Axis, space: Space) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The numbers of groups and of channels."""
    groups, channels = axis.size
    many, wide = axis.searchable
    if axis.kind == "attn":
        return (
            _sizes(axis, space, "heads", groups) if many else (groups,),
            _sizes(axis, space, "head_size", channels) if wide else (channels,),
        )
    if many and axis.kind == "embed":
        return _sizes(axis, space, "embed", groups, channels), (channels,)
    return (groups,), _sizes(axis, space, axis.kind, channels) if wide else (channels,)


def _sizes(axis: Axis, space: Space, key: str, size: int, unit: int = 1) -> tuple[int, ...]:
    """The sizes that a space allows where the model has `size`; explicit ones count in units of `unit`."""
    choice = space.get(key)
    if choice is None:
        return (size,)
    if isinstance(choice, Shares):
        return choice.of(size)
    explicit = sorted(set(choice))
    if not explicit or explicit[0] < 1 or explicit[-1] > size * unit:
        raise InputError(
            f"search space gives {key} the sizes {explicit}, but {axis.name} of this model has {size * unit}: "
            f"list sizes from 1 to {size * unit}, or give shares"
        )
    if odd := [number for number in explicit if number % unit]:
        raise InputError(
            f"search space gives {key} the size {odd[0]}, but {axis.name} of this model is made of heads of {unit}: "
            f"list multiples of {unit}, or give shares"
        )
    return tuple(number // unit for number in explicit)

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
    searched = []
    for axis in axes:
        if axis.kind == "attn":
            options = (
                _options(axis, space, "heads", axis.size[0]),
                _options(axis, space, "head_size", axis.size[1]),
            )
        else:
            options = (axis.size[0],), _options(axis, space, axis.kind, axis.size[1])
        searched.append(replace(axis, options=options))
    return searched


def _options(axis: Axis, space: Space, key: str, size: int) -> tuple[int, ...]:
    choice = space.get(key)
    if choice is None:
        return (size,)
    options = choice.of(size) if isinstance(choice, Shares) else tuple(sorted(set(choice)))
    if not options or options[0] < 1 or options[-1] > size:
        raise InputError(
            f"search space gives {key} the sizes {list(options)}, but {axis.name} of this model has {size}: "
            f"list sizes from 1 to {size}, or give shares"
        )
    return options

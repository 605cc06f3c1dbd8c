"""The values that a swept field may take: a range of integers or numbers, or a list of choices."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, Discriminator, Field, Tag, model_validator

from ofbnas.config import spacing
from ofbnas.config.section import Number, Positive, Scalar, Section, Whole, repeated

MAX_VALUES = 1_000_000  # of a range with a step; some samplers list them all
MAX_CHOICES = 1_000


class _Param(Section):
    """The values that a swept field may take."""

    when: dict[str, Scalar] = {}
    """Sweep the field only where these other swept fields have these values; elsewhere it keeps the
    study's own value."""


class IntParam(_Param):
    """A whole number from low to high, both written without a decimal point."""

    low: Whole
    """Lowest value."""
    high: Whole
    """Highest value."""
    log: bool = False
    """Sample on a logarithmic scale."""
    step: Annotated[Whole, Field(ge=1)] = 1
    """Distance between values."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        # Steps of 1 are the default, and a logarithmic scale allows no others.
        step = self.step if self.step > 1 else None
        _check_range(self.low, self.high, log=self.log, step=step, count=self.count())
        return self

    def ends(self) -> list[Any]:
        """Values that stand for all: if these are valid, so are those between."""
        return [self.low, self.high]

    def holds(self, value: Any) -> bool:
        """Whether the field may take a value."""
        # To Python, a bool is an int, and True would be in a range that contains 1.
        if not isinstance(value, int) or isinstance(value, bool):
            return False
        in_range = self.low <= value <= self.high
        return in_range and (value - self.low) % self.step == 0

    def count(self) -> int | None:
        """Number of values; None on a logarithmic scale, where no sampler lists them."""
        if self.log:
            return None
        return len(range(self.low, self.high + 1, self.step))

    def values(self) -> list[Any]:
        """All values."""
        return list(range(self.low, self.high + 1, self.step))


class FloatParam(_Param):
    """A number from low to high."""

    low: Number
    """Lowest value."""
    high: Number
    """Highest value."""
    log: bool = False
    """Sample on a logarithmic scale."""
    step: Positive | None = None
    """Distance between values; by default any value is possible."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _check_range(self.low, self.high, log=self.log, step=self.step, count=self.count())
        return self

    def ends(self) -> list[Any]:
        """Values that stand for all: if these are valid, so are those between."""
        return [self.low, self.high]

    def holds(self, value: Any) -> bool:
        """Whether the field may take a value."""
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        return self.low <= value <= self.high

    def count(self) -> int | None:
        """Number of values; None for a range without a step."""
        if self.step is None:
            return None
        return spacing.count(self.low, self.high, self.step)

    def values(self) -> list[Any]:
        """All values of a range with a step; none without one."""
        if self.step is None:
            return []
        values = spacing.spaced(self.low, self.high, self.step)
        # As a user would write them: 3 * 0.1 is 0.30000000000000004.
        return [round(value, 12) for value in values]


def _check_range(
    low: float, high: float, *, log: bool, step: float | None, count: int | None
) -> None:
    """Check the ends, the scale and the number of values of a range."""
    if low > high:
        raise ValueError(f"low {low} is above high {high}")
    if log and (low <= 0 or step is not None):
        raise ValueError("log needs low above 0 and no step")
    if count is not None and count > MAX_VALUES:
        raise ValueError(
            f"has {count:,} values, expected at most {MAX_VALUES:,}; use a larger step, or none"
        )


class ChoiceParam(_Param):
    """One value of a list."""

    choices: Annotated[list[Scalar], Field(min_length=1, max_length=MAX_CHOICES)]
    """The values."""

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        duplicates = repeated(self.choices)
        if duplicates:
            raise ValueError(f"has {duplicates[0]} twice")
        return self

    def ends(self) -> list[Any]:
        """All values."""
        return list(self.choices)

    def holds(self, value: Any) -> bool:
        """Whether the field may take a value."""
        return value in self.choices

    def count(self) -> int | None:
        """Number of values."""
        return len(self.choices)

    def values(self) -> list[Any]:
        """All values."""
        return list(self.choices)


def _kind_of_param(value: Any) -> str:
    """Which class a swept field's values belong to, so that only this class' errors are shown."""
    fields: dict[str, Any] = {}
    if isinstance(value, dict | BaseModel):
        fields = dict(value)
    if "choices" in fields:
        return "choices"
    # `{low: 1, high: 2.5}` is a range of numbers: both ends have to be integers.
    ends = [fields.get("low"), fields.get("high")]
    return "int" if all(isinstance(end, int) for end in ends) else "float"


Param = Annotated[
    Annotated[IntParam, Tag("int")]
    | Annotated[FloatParam, Tag("float")]
    | Annotated[ChoiceParam, Tag("choices")],
    Discriminator(_kind_of_param),
]

"""The parts of settings: kinds of numbers, sections that refuse unknown keys, spans and ramps."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from html import escape
from typing import Annotated, Any, Literal, NamedTuple, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    model_serializer,
    model_validator,
)


def _not_boolean(value: Any) -> Any:
    # pydantic would read true as 1, and false as 0.
    if isinstance(value, bool):
        raise ValueError(f"is {str(value).lower()}, expected a number")
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        for key, part in value.items():
            if not isinstance(key, str):
                raise ValueError(f"has the key {key}, expected a string")
            _plain(key)
            _plain(part)
    elif isinstance(value, list | tuple):
        for part in value:
            _plain(part)
    else:
        _scalar(value)
    return value


def _scalar(value: Any) -> Any:
    if not isinstance(value, str | int | float | None):
        kind = type(value).__name__
        raise ValueError(f"has a {kind}, expected a string, a number, true, false or null")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"has {value}, expected a finite number")
    if isinstance(value, str):
        value.encode()  # raises for an unpaired surrogate, which cannot be written to a file
    return value


# Kinds of numbers. Each has an upper limit far above any sensible value but low enough that nothing
# overflows, so that a typing error is reported in one line before a run starts.
_NUMBER = BeforeValidator(_not_boolean)
Number = Annotated[float, Field(ge=-1e30, le=1e30), _NUMBER]
NonNegative = Annotated[float, Field(ge=0, le=1e30), _NUMBER]
Positive = Annotated[float, Field(gt=0, le=1e30), _NUMBER]
Share = Annotated[float, Field(ge=0, le=1), _NUMBER]
ShareAbove0 = Annotated[float, Field(gt=0, le=1), _NUMBER]
ShareBelow1 = Annotated[float, Field(ge=0, lt=1), _NUMBER]
OpenShare = Annotated[float, Field(gt=0, lt=1), _NUMBER]

# Kinds of counts, written without a decimal point. A range that sweeps one has whole ends, too.
Epochs = Annotated[StrictInt, Field(gt=0, le=1_000_000)]
EpochsOrNone = Annotated[StrictInt, Field(ge=0, le=1_000_000)]
Candidates = Annotated[StrictInt, Field(ge=0, le=100_000)]
BatchSize = Annotated[StrictInt, Field(gt=0, le=1_000_000)]
Threads = Annotated[StrictInt, Field(gt=0, le=1024)]
Batches = Annotated[StrictInt, Field(gt=0, le=1_000_000)]
Images = Annotated[StrictInt, Field(gt=0, le=10**12)]  # of a data set
Trials = Annotated[StrictInt, Field(gt=0, le=1_000_000)]
Processes = Annotated[StrictInt, Field(gt=0, le=10_000)]
Repeats = Annotated[StrictInt, Field(gt=0, le=1_000)]
Size = Annotated[StrictInt, Field(gt=0, le=65_536)]  # of a tensor: units, heads, classes
SizeOr0 = Annotated[StrictInt, Field(ge=0, le=65_536)]  # where a tensor may go
Pixels = Annotated[StrictInt, Field(ge=0, le=1_000)]
Whole = Annotated[StrictInt, Field(ge=-(10**12), le=10**12)]  # an end of a range

# numpy takes seeds of 32 bits. One bit is left free, since a trial's number is added.
Seed = Annotated[StrictInt, Field(ge=0, lt=2**31)]

# A value that another section or library checks; Plain may also be a list or a mapping of scalars.
Scalar = Annotated[Any, AfterValidator(_scalar)]
Plain = Annotated[Any, AfterValidator(_plain)]


def repeated(values: Iterable[Hashable]) -> list[Hashable]:
    """The values that a list holds more than once."""
    return [value for value, count in Counter(values).items() if count > 1]


class Length(NamedTuple):
    """The length of a run, or of a phase of one.

    Attributes:
        steps: In optimizer steps.
        epochs: The same in epochs.
    """

    steps: float
    epochs: float


class Section(BaseModel):
    """A section of a study's YAML; unknown keys are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """The fields that repr() shows: those that are not the defaults."""
        fields = type(self).model_fields
        for name, value in super().__repr_args__():
            default = (
                fields[name].get_default(call_default_factory=True) if name in fields else None
            )
            if value != default:
                yield name, value

    def _repr_html_(self) -> str:
        """The same fields as YAML, in a notebook."""
        tree = self.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
        text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, default_flow_style=None)
        return f"<pre>{escape(text)}</pre>"


class Span(Section):
    """A part of a run: a share of it (a plain number), `{epochs: 20}`, or `{steps: 5000}`."""

    share: Share | None = None
    """Share of the run, or of the phase that the field is about."""
    epochs: NonNegative | None = None
    """Number of epochs; may be a fraction."""
    steps: NonNegative | None = None
    """Number of optimizer steps."""

    @model_validator(mode="before")
    @classmethod
    def _plain_number_is_a_share(cls, value: Any) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return {"share": value}
        return value

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        values = (self.share, self.epochs, self.steps)
        if sum(value is not None for value in values) != 1:
            raise ValueError(
                "expected a share of the run such as 0.2, {epochs: 20} or {steps: 5000}"
            )
        return self

    @model_serializer
    def _as_written(self) -> float | dict[str, float]:
        if self.share is not None:
            return self.share
        if self.epochs is not None:
            return {"epochs": self.epochs}
        return {"steps": self.steps or 0.0}

    def of(self, length: Length) -> float:
        """Number of optimizer steps that the span takes in a run, or a phase, of some length.

        >>> run = Length(steps=1000, epochs=10)
        >>> Span(share=0.25).of(run)
        250.0
        >>> Span(epochs=3).of(run)
        300.0
        """
        if self.share is not None:
            return self.share * length.steps
        if self.steps is not None:
            return self.steps
        return (self.epochs or 0.0) * length.steps / length.epochs


class RampConfig(Section):
    """A value that moves from start to end during a warm-up and then stays."""

    start: Share
    """Value at the first step."""
    end: Share
    """Value after the warm-up."""
    warmup: Span = Span(share=0.2)
    """Part of the run, or of the phase, in which the value moves."""
    shape: Literal["linear", "cosine"] = "linear"
    """How it moves: along a line, or along half a cosine, slowly at both ends."""

    def at(self, step: int, length: Length) -> float:
        """The value at an optimizer step, counted from 0, of a run of some length.

        >>> ramp = RampConfig(start=1.0, end=0.5, warmup=0.2)
        >>> [ramp.at(step, Length(steps=100, epochs=10)) for step in (0, 10, 20, 99)]
        [1.0, 0.75, 0.5, 0.5]
        """
        warmup = self.warmup.of(length)
        if step >= warmup:
            return self.end
        progress = step / warmup
        if self.shape == "cosine":
            progress = (1 - math.cos(math.pi * progress)) / 2
        return self.start + (self.end - self.start) * progress

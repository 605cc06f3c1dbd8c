"""What all settings are made of: sections that refuse unknown keys, and values that follow a run."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_serializer, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]


class Length(NamedTuple):
    """How long a run, or a phase of one, is."""

    steps: float
    epochs: float


class Section(BaseModel):
    """A part of a study; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class Span(Section):
    """A stretch of a run: a share of it (a plain number), `{epochs: 20}`, or `{steps: 5000}`."""

    share: Share | None = None
    epochs: NonNegative | None = None
    steps: NonNegative | None = None

    @model_validator(mode="before")
    @classmethod
    def _plain_number_is_a_share(cls, value: Any) -> Any:
        return {"share": value} if isinstance(value, (int, float)) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(value is not None for value in (self.share, self.epochs, self.steps)) != 1:
            raise ValueError("expected a share of the run such as 0.2, {epochs: 20} or {steps: 5000}")
        return self

    @model_serializer
    def _as_written(self) -> float | dict[str, float]:
        if self.share is not None:
            return self.share
        return {"epochs": self.epochs} if self.epochs is not None else {"steps": self.steps or 0.0}

    def of(self, length: Length) -> float:
        """Its optimizer steps in a run, or a phase, of some length."""
        if self.share is not None:
            return self.share * length.steps
        return self.steps if self.steps is not None else (self.epochs or 0.0) * length.steps / length.epochs


class RampConfig(Section):
    """A value that goes from start to end in the warm-up, then stays."""

    start: Share
    end: Share
    warmup: Span = Span(share=0.2)
    """The end is reached after this much of the run."""
    shape: Literal["linear", "cosine"] = "linear"

    def at(self, step: int, length: Length) -> float:
        """The value at an optimizer step, from 0, of a run."""
        warmup = self.warmup.of(length)
        if step >= warmup:
            return self.end
        progress = step / warmup
        if self.shape == "cosine":
            progress = (1 - math.cos(math.pi * progress)) / 2
        return self.start + (self.end - self.start) * progress

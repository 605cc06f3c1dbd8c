"""What a study tries: ranges of fields, a sampler, objectives and constraints."""

from __future__ import annotations

import itertools
import math
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    Discriminator,
    Field,
    PlainSerializer,
    PositiveFloat,
    PositiveInt,
    StrictInt,
    Tag,
    model_validator,
)

from ofbnas.config import storage
from ofbnas.config.section import Section

MAX_GRID = 10_000
Storage = Annotated[str, AfterValidator(storage.checked), PlainSerializer(storage.shown)]
Metric = Literal["val_top1", "top1", "top5", "gmacs", "params", "latency_ms", "gpu_hours", "seconds"]
KNOWN_AT_RUNGS = ("val_top1", "gmacs", "params")


class _Param(Section):
    """A swept field."""

    when: dict[str, bool | int | float | str | None] = {}
    """Only swept where these other swept fields have these values; elsewhere the study's own value holds."""


class IntParam(_Param):
    """A whole number from low to high, both written without a decimal point."""

    low: StrictInt
    high: StrictInt
    log: bool = False
    step: Annotated[StrictInt, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _check_range(self.low, self.high, self.log, self.step if self.step > 1 else None)
        return self

    def ends(self) -> list[Any]:
        """Values that stand for all: if these are valid, so are those between."""
        return [self.low, self.high]

    def holds(self, value: Any) -> bool:
        """Whether the field may have a value."""
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and self.low <= value <= self.high and (value - self.low) % self.step == 0

    def grid(self) -> list[Any] | None:
        """All values, None where they are too many to list."""
        return None if self.log else list(range(self.low, self.high + 1, self.step))


class FloatParam(_Param):
    """A number from low to high."""

    low: float
    high: float
    log: bool = False
    step: PositiveFloat | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _check_range(self.low, self.high, self.log, self.step)
        return self

    def ends(self) -> list[Any]:
        """Values that stand for all: if these are valid, so are those between."""
        return [self.low, self.high]

    def holds(self, value: Any) -> bool:
        """Whether the field may have a value."""
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high

    def grid(self) -> list[Any] | None:
        """All values, None where they are too many to list."""
        if self.step is None:
            return None
        count = int((self.high - self.low) / self.step + 1e-9) + 1
        return [round(self.low + index * self.step, 12) for index in range(count)]


def _check_range(low: float, high: float, log: bool, step: float | None) -> None:
    if low > high:
        raise ValueError(f"low {low} is above high {high}")
    if log and (low <= 0 or step is not None):
        raise ValueError("log needs low above 0 and no step")


class ChoiceParam(_Param):
    """One of a list."""

    choices: Annotated[list[bool | int | float | str | None], Field(min_length=1)]

    def ends(self) -> list[Any]:
        """All values."""
        return list(self.choices)

    def holds(self, value: Any) -> bool:
        """Whether the field may have a value."""
        return value in self.choices

    def grid(self) -> list[Any] | None:
        """All values."""
        return list(self.choices)


class Bound(Section):
    """What a column may be at least and at most."""

    min: float | None = None
    max: float | None = None

    def excess(self, value: float) -> float:
        """By how much a value breaks the bound; 0 or less where it does not."""
        over = [] if self.max is None else [value - self.max]
        under = [] if self.min is None else [self.min - value]
        return max([*over, *under], default=0.0)


def _kind_of_param(value: Any) -> str:
    """Which of the three a swept field's range is, so that only its own mistakes are told."""
    given = value if isinstance(value, dict) else dict(value) if isinstance(value, BaseModel) else {}
    if "choices" in given:
        return "choices"
    return "int" if isinstance(given.get("low"), int) and isinstance(given.get("high"), int) else "float"


Param = Annotated[
    Annotated[IntParam, Tag("int")] | Annotated[FloatParam, Tag("float")] | Annotated[ChoiceParam, Tag("choices")],
    Discriminator(_kind_of_param),
]


class _Stopping(Section):
    """When trials are stopped early."""

    first_rung: PositiveInt | None = None
    """Epochs of the search before a trial can be stopped; by default up to the last one before all is decided, see
    `search.decide_by`: right after that accuracy is low for a while, the more so the smaller the budget."""


class _Halving(_Stopping):
    eta: Annotated[StrictInt, Field(ge=2)] = 4
    """About 1 in eta trials goes on from a rung, and each rung is eta times as late as the one before."""

    def rungs(self, first: int, epochs: int) -> tuple[int, ...]:
        """The epochs of rungs, from the first one to the search's last epoch."""
        return tuple(itertools.takewhile(lambda rung: rung <= epochs, (first * self.eta**k for k in itertools.count())))


class FrontStopping(_Halving):
    """By all objectives: a trial goes on whose front, among trials peeled front by front, is in the best 1/eta."""

    method: Literal["front"]
    ties: Literal["hypervolume", "epsilon_net"] = "hypervolume"
    """Who goes on from a front that has not room enough. hypervolume: those that add most to it. epsilon_net: those
    that are farthest apart."""


class AshaStopping(_Halving):
    """By one objective: Ray's ASHA."""

    method: Literal["asha"]
    metric: Metric
    """The objective."""


class MedianStopping(_Stopping):
    """By one objective: Ray's median rule, on every multiple of `first_rung`."""

    method: Literal["median"]
    metric: Metric
    """The objective."""

    def rungs(self, first: int, epochs: int) -> tuple[int, ...]:
        """The epochs of rungs, from the first one to the search's last epoch."""
        return tuple(range(first, epochs + 1, first))


Stopping = Annotated[FrontStopping | AshaStopping | MedianStopping, Field(discriminator="method")]


class SweepConfig(Section):
    """What the study tries."""

    n_trials: PositiveInt
    sampler: Literal["tpe", "nsga2", "nsga3", "gp", "qmc", "random", "grid"] = "tpe"
    """A sampler of Optuna's; tpe is multivariate. grid needs choices, or a step, for each field."""
    sampler_options: dict[str, bool | int | float | str] = {}
    """More arguments of that sampler of Optuna's, such as n_startup_trials: 20."""
    params: dict[str, Param] = {}
    """Swept fields of the study by dotted name."""
    start: list[dict[str, Any]] = []
    """Trials to begin with: values of swept fields; the sampler draws those that are not given."""
    constraints: dict[Metric, Bound] = {}
    """Columns with a bound that a trial has to keep to count as feasible; for tpe, gp, nsga2 and nsga3."""
    storage: Annotated[Storage | None, Field(repr=False)] = None
    """Where Optuna keeps the study: the URL of a database, such as postgresql+psycopg://USER:${OFBNAS_DB_PASSWORD}@HOST/NAME
    or sqlite:///FILE, or the path of a journal; by default journal.log in the study's folder. A password is never
    written: ${OFBNAS_DB_PASSWORD} stands for it in study.yaml."""
    early_stopping: Stopping | None = None
    """Which trials are stopped during their search; by default none."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        names = list(self.params)
        for index, (name, param) in enumerate(self.params.items()):
            for other, value in param.when.items():
                if other not in names[:index]:
                    raise ValueError(f"{name} depends on {other}, which has to be swept too, and before it")
                if not self.params[other].holds(value):
                    raise ValueError(f"{name} depends on {other} being {value}, which it never is")
        for values in self.start:
            for name, value in values.items():
                if name not in self.params or not self.params[name].holds(value):
                    raise ValueError(f"start has {name} at {value}, which is not among what is swept")
        if self.constraints and self.sampler in ("qmc", "random", "grid"):
            raise ValueError(f"{self.sampler} knows no constraints; use tpe, gp, nsga2 or nsga3")
        if self.sampler == "grid":
            self._check_grid()
        return self

    def _check_grid(self) -> None:
        if any(param.when for param in self.params.values()):
            raise ValueError("a grid has no conditions; use another sampler")
        if without := [name for name, param in self.params.items() if param.grid() is None]:
            raise ValueError(f"a grid needs choices or a step for {without[0]}")
        points = math.prod(len(param.grid() or ()) for param in self.params.values())
        if points > MAX_GRID:
            raise ValueError(f"the grid has {points:,} points, expected at most {MAX_GRID:,}; use qmc")
        if self.n_trials > points:
            raise ValueError(f"n_trials is {self.n_trials}, but the grid has {points} points")


class Objective(Section):
    """A column of the architecture table to be optimised."""

    metric: Metric
    direction: Literal["minimize", "maximize"]

    @property
    def mode(self) -> Literal["min", "max"]:
        """The direction in Ray's words."""
        return "max" if self.direction == "maximize" else "min"

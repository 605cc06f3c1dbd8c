"""The sweep of a study: swept fields, a sampler, early stopping, objectives and constraints."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, PlainSerializer, StrictInt, model_validator

from ofbnas.config import storage
from ofbnas.config.ranges import Param
from ofbnas.config.section import Epochs, Plain, Scalar, Section, Trials
from ofbnas.config.trackers import Tracker, options_of
from ofbnas.table.columns import COSTS, QUALITIES

MAX_GRID = 10_000  # points
Storage = Annotated[str, AfterValidator(storage.checked), PlainSerializer(storage.shown)]


def _known_metric(name: str) -> str:
    known = (*QUALITIES, *COSTS)
    if name not in known:
        raise ValueError(f"is {name!r}, expected {', '.join(known)}")
    return name


Metric = Annotated[str, AfterValidator(_known_metric)]


class Bound(Section):
    """The lowest and the highest value that a column may have."""

    min: float | None = None
    """Lowest value; by default none."""
    max: float | None = None
    """Highest value; by default none."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}, which nothing meets")
        return self

    def excess(self, value: float) -> float:
        """How far a value violates the bound; 0 or less where it does not.

        >>> Bound(max=2.0).excess(2.5)
        0.5
        """
        excesses = []  # at most one of them is above 0
        if self.max is not None:
            excesses.append(value - self.max)
        if self.min is not None:
            excesses.append(self.min - value)
        return max(excesses, default=0.0)


class _Stopping(Section):
    """When trials are stopped early."""

    first_rung: Epochs | None = None
    """Epochs of the search before a trial can be stopped. By default the last epoch before
    `search.decide_by`: with `decided_weights: searched`, accuracy is low for a while after that
    decision, the lower the smaller the budget."""


class _Halving(_Stopping):
    """Successive halving."""

    eta: Annotated[StrictInt, Field(ge=2, le=1_000)] = 4
    """Reduction factor: about 1 in eta trials is promoted at a rung, and each rung comes eta times
    as late as the one before."""

    def rungs(self, first: int, epochs: int) -> tuple[int, ...]:
        """The epochs of rungs, from the first rung to the search's last epoch."""
        rungs = []
        rung = first
        while rung <= epochs:
            rungs.append(rung)
            rung *= self.eta
        return tuple(rungs)


class FrontStopping(_Halving):
    """Early stopping by all objectives.

    Trials are sorted into fronts, best front first; the best 1/eta of them are promoted.
    """

    method: Literal["front"]
    """Kind of early stopping."""
    ties: Literal["hypervolume", "epsilon_net"] = "hypervolume"
    """Which trials of a front are promoted if not all of them can be. hypervolume: those that
    contribute most to it. epsilon_net: those that are farthest apart."""


class AshaStopping(_Halving):
    """Early stopping by one objective: Ray's ASHA."""

    method: Literal["asha"]
    """Kind of early stopping."""
    metric: Metric
    """The objective."""


class MedianStopping(_Stopping):
    """Early stopping by one objective: Ray's median rule, at every multiple of `first_rung`."""

    method: Literal["median"]
    """Kind of early stopping."""
    metric: Metric
    """The objective."""

    def rungs(self, first: int, epochs: int) -> tuple[int, ...]:
        """The epochs of rungs, from the first rung to the search's last epoch."""
        return tuple(range(first, epochs + 1, first))


Stopping = Annotated[FrontStopping | AshaStopping | MedianStopping, Field(discriminator="method")]


class SweepConfig(Section):
    """The trials of a study: what is swept, and how."""

    n_trials: Trials
    """Number of trials."""
    sampler: Literal["tpe", "nsga2", "nsga3", "gp", "qmc", "random", "grid"] = "tpe"
    """Optuna's sampler; tpe is multivariate. grid needs choices or a step for each swept field."""
    sampler_options: dict[str, Scalar] = {}
    """Further arguments of the Optuna sampler, such as n_startup_trials: 20."""
    params: dict[str, Param] = {}
    """Swept fields of `search` and `finetune`, by dotted name such as search.lr."""
    start: list[dict[str, Plain]] = []
    """Trials to start with, as values of swept fields by dotted name; the sampler draws values that
    are not given."""
    constraints: dict[Metric, Bound] = {}
    """Bounds by column of the table: a trial that violates one is infeasible. For the samplers tpe,
    gp, nsga2 and nsga3."""
    storage: Annotated[Storage | None, Field(repr=False)] = None
    """Where Optuna keeps the study: the URL of a database, such as
    postgresql+psycopg://USER:${OFBNAS_DB_PASSWORD}@HOST/NAME or sqlite:///FILE, or the path of a
    journal; by default journal.log in the study's folder. A password may be given as an environment
    variable whose name begins with OFBNAS_. It is never written: study.yaml has
    ${OFBNAS_DB_PASSWORD} instead."""
    early_stopping: Stopping | None = None
    """Which trials are stopped during their search; by default none."""
    trackers: list[Tracker] = []
    """Trackers that rows and curves are mirrored to: tensorboard, mlflow, wandb, optuna_dashboard;
    each a name, or a mapping with its options such as {mlflow: {uri: "http://HOST:5000"}}."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        self._check_conditions()
        self._check_start()
        options_of(self.trackers)  # refuses one that is there twice
        if self.constraints and self.sampler in ("qmc", "random", "grid"):
            raise ValueError(f"{self.sampler} knows no constraints; use tpe, gp, nsga2 or nsga3")
        if self.sampler == "grid":
            self._check_grid()
        return self

    def _check_conditions(self) -> None:
        """Check that fields depend on fields swept before them, and on values these may take."""
        # A point is drawn field by field, in this order, so a condition can only look back.
        earlier: dict[str, Param] = {}
        for name, param in self.params.items():
            for other, value in param.when.items():
                if other not in earlier:
                    raise ValueError(
                        f"{name} depends on {other}, which has to be swept too, and before it"
                    )
                if not earlier[other].holds(value):
                    raise ValueError(f"{name} depends on {other} being {value}, which it never is")
            earlier[name] = param

    def _check_start(self) -> None:
        """Check that the trials to start with have values of the sweep."""
        for values in self.start:
            for name, value in values.items():
                if name not in self.params or not self.params[name].holds(value):
                    raise ValueError(
                        f"start has {name} at {value}, which is not among what is swept"
                    )

    def _check_grid(self) -> None:
        """Check that a grid is finite, has a point for each trial, and is small enough to list."""
        # The points of a grid have a value for each field.
        if any(param.when for param in self.params.values()):
            raise ValueError("a grid has no conditions; use another sampler")
        points = 1
        for name, param in self.params.items():
            count = param.count()
            if count is None:
                raise ValueError(f"a grid needs choices or a step for {name}")
            points *= count
        if points > MAX_GRID:
            raise ValueError(
                f"the grid has {points:,} points, expected at most {MAX_GRID:,}; use qmc"
            )
        if self.n_trials > points:
            raise ValueError(f"n_trials is {self.n_trials}, but the grid has {points} points")


class Objective(Section):
    """A column of the table to optimize."""

    metric: Metric
    """Name of the column."""
    direction: Literal["minimize", "maximize"]
    """Which values are better."""

    @property
    def mode(self) -> Literal["min", "max"]:
        """The direction, by Ray's name."""
        return "max" if self.direction == "maximize" else "min"

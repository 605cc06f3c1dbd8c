"""A study: a parent, its data, the space around it, a search and its sweep."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Discriminator, Field, StrictInt, Tag, ValidationError, model_validator

from ofbnas.config.fields import first_error, overlap, set_value
from ofbnas.config.latency import LatencyConfig
from ofbnas.config.model import DataConfig, ModelConfig
from ofbnas.config.search import SearchConfig
from ofbnas.config.section import (
    Length,
    NonNegative,
    Positive,
    Processes,
    Section,
    Seed,
    Share,
    ShareAbove0,
    Size,
    SizeOr0,
    Trials,
    repeated,
)
from ofbnas.config.spacing import MAX_OPTIONS, count
from ofbnas.config.sweep import FrontStopping, Objective, SweepConfig
from ofbnas.config.training import FinetuneConfig, TrainConfig
from ofbnas.errors import InputError
from ofbnas.table.columns import KNOWN_AT_RUNGS, comparable


class RangeConfig(Section):
    """Sizes of an axis, as evenly spaced shares of the parent's size."""

    low: ShareAbove0
    """Smallest share."""
    high: ShareAbove0 = 1.0
    """Largest share."""
    step: ShareAbove0
    """Distance between shares."""
    multiple_of: Size = 1
    """Round sizes to multiples of this, at least to one; the parent's own size stays as it is."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        options = count(self.low, self.high, self.step)
        if options > MAX_OPTIONS:
            raise ValueError(
                f"gives {options:,} sizes, expected at most {MAX_OPTIONS:,}; use a larger step"
            )
        return self


class RangeFrom0Config(RangeConfig):
    """Sizes of an axis that may be removed, as evenly spaced shares of the parent's size."""

    low: Share
    """Smallest share; 0 removes the axis, and what serves it, from its block."""


def _kind_of_sizes(value: Any) -> str:
    return "list" if isinstance(value, list) else "shares"


Sizes = Annotated[
    Annotated[RangeConfig, Tag("shares")]
    | Annotated[list[Size], Field(min_length=1, max_length=MAX_OPTIONS), Tag("list")],
    Discriminator(_kind_of_sizes),
]
SizesFrom0 = Annotated[
    Annotated[RangeFrom0Config, Tag("shares")]
    | Annotated[list[SizeOr0], Field(min_length=1, max_length=MAX_OPTIONS), Tag("list")],
    Discriminator(_kind_of_sizes),
]


class SpaceConfig(Section):
    """The search space: sizes that axes of each kind may take; a kind left out is not searched."""

    embed: Sizes | None = None
    """Channels of the embedding."""
    heads: SizesFrom0 | None = None
    """Heads of an attention; 0 removes it from its block."""
    head_size: Sizes | None = None
    """Channels of a head."""
    mlp: SizesFrom0 | None = None
    """Hidden units of an MLP; 0 removes it from its block."""
    alike: bool = False
    """Whether all blocks take the same sizes, and the embedding that of all heads together."""


def _kind_of_space(value: Any) -> str:
    return "name" if isinstance(value, str) else "space"


SpaceOrName = Annotated[
    Annotated[str, Tag("name")] | Annotated[SpaceConfig, Tag("space")],
    Discriminator(_kind_of_space),
]


class ResourcesConfig(Section):
    """The resources that Ray gives a trial, and where its files may go."""

    cpus_per_trial: Positive = 1
    """CPUs of a trial, over all its workers."""
    gpus_per_trial: NonNegative = 0
    """GPUs of a trial, over all its workers; may be a fraction for a trial of one worker."""
    workers_per_trial: Processes = 1
    """Number of processes that train one search together, each with its share of every batch."""
    span_nodes: bool = False
    """Allow the workers of a trial to run on several nodes; by default one node runs them all."""
    max_concurrent: Trials | None = None
    """Highest number of trials that run at a time; by default as many as fit."""
    max_failures: Annotated[StrictInt, Field(ge=0, le=1_000)] = 2
    """Number of times that a trial is restarted when its process or its node is lost, or when it
    exceeds a time limit."""
    trial_timeout: Positive | None = None
    """Seconds that one attempt at a trial may take; by default there is no limit. A trial that
    takes longer is killed and restarted from its last epoch, with the same limit, up to
    `max_failures` times, and then fails."""
    stall_factor: Positive | None = 20
    """A trial is also killed and restarted if it has finished no epoch for this many times the
    usual duration of an epoch in the study, and for `stall_floor` seconds; null turns this off.
    Before the first epoch of any trial, a day is allowed."""
    stall_floor: Positive = 600
    """Seconds without an epoch that are always allowed: to start a process, to compile, to read the
    first batch, to evaluate and to save."""
    storage_path: str | None = None
    """Shared storage that all nodes reach, for checkpoints and results: a folder, or a URL such as
    s3://BUCKET/PREFIX. By default all nodes must see the study's own folder."""
    disk_gb: Positive | None = None
    """The study stops when its folder and its files in the shared storage have grown to this many
    GB; by default there is no limit."""

    @model_validator(mode="after")
    def _gives_each_worker_one_gpu(self) -> Self:
        gpus = self.gpus_per_trial
        workers = self.workers_per_trial
        if self.span_nodes and workers == 1:
            raise ValueError(
                "span_nodes is for trials of several workers; give workers_per_trial, or leave it "
                "out"
            )
        if gpus > workers:
            raise ValueError(
                f"gpus_per_trial is {gpus:g}, but a worker uses one; give as many workers_per_trial"
            )
        if workers > 1 and gpus not in (0, workers):  # NCCL refuses two processes on one GPU
            raise ValueError(
                f"gpus_per_trial is {gpus:g}, expected 0 or one for each of {workers} "
                "workers_per_trial"
            )
        return self

    def per_worker(self) -> tuple[float, float]:
        """CPUs and GPUs of each worker of a trial."""
        return (
            self.cpus_per_trial / self.workers_per_trial,
            self.gpus_per_trial / self.workers_per_trial,
        )


class StudyConfig(Section):
    """A study: a parent, the search space around it, and a sweep of searches."""

    name: Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Name of the study: letters, digits, dots, dashes and underscores."""
    seed: Seed = 0
    """Random seed of the study; a trial's seed is this plus its number."""
    model: ModelConfig
    """The parent."""
    data: DataConfig
    """The data set: fields of SmallDataConfig for digits and fashion_mnist, of OwnDataConfig for a
    function of yours (module:function), else of ImageDataConfig."""
    pretrain: TrainConfig | None = None
    """How the parent is trained if no weights are given for it; done once, then cached."""
    search_space: SpaceOrName = "vit"
    """The search space: a name in search_spaces/, the path of a .yaml file, or the space itself."""
    search: SearchConfig
    """The search of each trial."""
    finetune: FinetuneConfig | None = None
    """How the subnet is trained after the search; by default not at all."""
    latency: LatencyConfig | None = None
    """How latency is measured; by default not at all."""
    objectives: Annotated[list[Objective], Field(min_length=1)] = [
        Objective(metric="val_top1", direction="maximize"),
        Objective(metric="gmacs", direction="minimize"),
    ]
    """Columns of the table to optimize."""
    sweep: SweepConfig = SweepConfig(n_trials=1)
    """The trials of the study; by default one, of the study's own values."""
    resources: ResourcesConfig = ResourcesConfig()
    """Resources of each trial."""

    @model_validator(mode="after")
    def _has_weights(self) -> Self:
        if not (self.pretrain or self.model.pretrained or self.model.checkpoint):
            raise ValueError(
                "has no weights for the parent; give pretrain, model.pretrained or model.checkpoint"
            )
        return self

    @model_validator(mode="after")
    def _measures_what_it_asks_for(self) -> Self:
        metrics = [objective.metric for objective in self.objectives]
        for metric in [*metrics, *self.sweep.constraints]:
            column = comparable()[metric]
            if column.section is not None and getattr(self, column.section) is None:
                raise ValueError(
                    f"asks for {metric}, but does not measure it; give {column.section}, such as "
                    f"{column.example}"
                )
        return self

    @model_validator(mode="after")
    def _has_each_objective_once(self) -> Self:
        duplicates = repeated(objective.metric for objective in self.objectives)
        if duplicates:
            raise ValueError(
                f"objectives has {duplicates[0]} twice; give each column once, in one direction"
            )
        return self

    @model_validator(mode="after")
    def _sweeps_fields(self) -> Self:
        params = self.sweep.params
        for path, param in params.items():
            if not path.startswith(("search.", "finetune.")):
                raise ValueError(
                    f"sweep.params has {path}; fields of search and finetune can be swept"
                )
            # Each end must be valid alone, with the study's own values for all other fields.
            for value in param.ends():
                self.with_values({path: value})
        for path, other in itertools.combinations(params, 2):
            if overlap(path, other):
                raise ValueError(
                    f"sweep.params has {path} and {other}, which set the same; sweep one of them"
                )

        # Values that are valid one by one may still not go together.
        always = {path: param.ends() for path, param in params.items() if not param.when}
        if len(always) > 1:
            self.with_values({path: ends[0] for path, ends in always.items()})
            self.with_values({path: ends[-1] for path, ends in always.items()})
        return self

    @model_validator(mode="after")
    def _stops_by_what_is_known(self) -> Self:
        stopping = self.sweep.early_stopping
        if stopping is None:
            return self
        metrics = [objective.metric for objective in self.objectives]
        if isinstance(stopping, FrontStopping):
            judged = metrics
            if len(metrics) < 2:
                raise ValueError(
                    "sweep.early_stopping.method front needs at least two objectives; use asha or "
                    "median"
                )
        else:
            judged = [stopping.metric]
        if judged[0] not in metrics:
            raise ValueError(
                f"sweep.early_stopping.metric is {judged[0]}, expected an objective: "
                f"{', '.join(metrics)}"
            )
        late = [metric for metric in judged if metric not in KNOWN_AT_RUNGS]
        if late:
            raise ValueError(
                f"sweep.early_stopping.method {stopping.method} looks at {late[0]}, which is not "
                "known before a trial ends; in its search there are "
                f"{', '.join(KNOWN_AT_RUNGS)}"
            )
        self._check_rungs()
        return self

    def _check_rungs(self) -> None:
        """Check that even the shortest search of the sweep has a rung."""
        swept = self.sweep.params.get("search.epochs")
        shortest = self.search.epochs
        if swept is not None:
            shortest = min(swept.ends())
        if not self.rungs(shortest):
            raise ValueError(
                f"sweep.early_stopping.first_rung is {self.first_rung()}, but a search has "
                f"{shortest} epochs; give fewer"
            )

    def rungs(self, epochs: int) -> tuple[int, ...]:
        """Epochs, from 1, after which a trial may be stopped; none without early stopping.

        Args:
            epochs: Number of epochs of the trial's search.
        """
        stopping = self.sweep.early_stopping
        if stopping is None:
            return ()
        return stopping.rungs(self.first_rung(), self.last_rung(epochs))

    def last_rung(self, epochs: int) -> int:
        """The last epoch of a search after which it makes sense to stop a trial."""
        # Without fine-tuning a trial ends with its search, so there is nothing to stop after that.
        return epochs - 1 if self.finetune is None else epochs

    def first_rung(self) -> int:
        """The epoch of the first rung.

        Raises:
            ValueError: It has no default here and must be given.
        """
        stopping = self.sweep.early_stopping
        if stopping is not None and stopping.first_rung is not None:
            return stopping.first_rung
        decide_by = self.search.decide_by
        if decide_by.steps is not None:
            raise ValueError(
                "sweep.early_stopping needs first_rung in epochs, as search.decide_by is in steps"
            )
        epochs = self.search.epochs
        decided_after = decide_by.of(Length(epochs, epochs))
        # Rounded before the ceiling, since 0.28 * 25 is 7.000000000000001.
        return max(1, math.ceil(round(decided_after, 6)) - 1)

    def with_values(self, values: Mapping[str, Any]) -> StudyConfig:
        """The study with other values for fields, and without its sweep of them.

        Args:
            values: Dotted name of a field to its value.

        Raises:
            InputError: A name is not a field, or a value is not allowed there.
        """
        tree = self.model_dump()
        # Without the sweep, whose ends would be validated again, by this same method.
        tree["sweep"] = {"n_trials": self.sweep.n_trials}
        for path, value in values.items():
            set_value(tree, path, value)
        try:
            return StudyConfig.model_validate(tree)
        except ValidationError as error:
            raise InputError(first_error(error, tree, StudyConfig).message) from None

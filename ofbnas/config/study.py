"""A study: a parent, its data, the space around it, a search and its sweep."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import (
    Discriminator,
    Field,
    PositiveFloat,
    PositiveInt,
    Tag,
    ValidationError,
    model_validator,
)

from ofbnas.config.latency import LatencyConfig
from ofbnas.config.model import DataConfig, ModelConfig
from ofbnas.config.search import SearchConfig
from ofbnas.config.section import Length, NonNegative, Section
from ofbnas.config.sweep import KNOWN_AT_RUNGS, FrontStopping, Objective, SweepConfig
from ofbnas.config.training import FinetuneConfig, TrainConfig
from ofbnas.errors import InputError
from ofbnas.fields import first_error, set_value


class RangeConfig(Section):
    """Shares of the parent's size."""

    low: Annotated[float, Field(gt=0, le=1)]
    high: Annotated[float, Field(gt=0, le=1)] = 1.0
    step: Annotated[float, Field(gt=0, le=1)]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self


def _kind_of_sizes(value: Any) -> str:
    return "list" if isinstance(value, list) else "shares"


Sizes = Annotated[
    Annotated[RangeConfig, Tag("shares")] | Annotated[list[PositiveInt], Field(min_length=1), Tag("list")],
    Discriminator(_kind_of_sizes),
]


class SpaceConfig(Section):
    """The sizes an axis may take; what is left out is not searched."""

    embed: Sizes | None = None
    heads: Sizes | None = None
    head_size: Sizes | None = None
    mlp: Sizes | None = None


class ResourcesConfig(Section):
    """What Ray gives a trial, and where its files may go."""

    cpus_per_trial: PositiveFloat = 1
    """Of all its workers together, as are GPUs."""
    gpus_per_trial: NonNegative = 0
    workers_per_trial: PositiveInt = 1
    """Processes that train one search together, each with its share of every batch."""
    span_nodes: bool = False
    """Whether the workers of a trial may lie on several nodes; by default one node holds them all."""
    max_concurrent: PositiveInt | None = None
    """Trials at a time; by default as many as fit."""
    max_failures: Annotated[int, Field(ge=0)] = 2
    """How often a trial is started again when its process or node is lost."""
    storage_path: str | None = None
    """A folder, or s3://BUCKET/PREFIX or the like, that all nodes reach: checkpoints and results go through it. By
    default all nodes have to see the study's own folder."""
    disk_gb: PositiveFloat | None = None
    """The study stops when its folder and what it has in the shared storage have grown to this."""

    @model_validator(mode="after")
    def _gives_each_worker_one_gpu(self) -> Self:
        if self.span_nodes and self.workers_per_trial == 1:
            raise ValueError("span_nodes is for trials of several workers; give workers_per_trial, or leave it out")
        gpus, workers = self.gpus_per_trial, self.workers_per_trial
        if gpus > workers:
            raise ValueError(f"gpus_per_trial is {gpus:g}, but a worker uses one; give as many workers_per_trial")
        if workers > 1 and gpus not in (0, workers):  # NCCL refuses two processes on one GPU
            raise ValueError(f"gpus_per_trial is {gpus:g}, expected 0 or one for each of {workers} workers_per_trial")
        return self

    def per_worker(self) -> tuple[float, float]:
        """CPUs and GPUs of each worker of a trial."""
        return self.cpus_per_trial / self.workers_per_trial, self.gpus_per_trial / self.workers_per_trial


class StudyConfig(Section):
    """A study: a parent, the space around it, and a sweep of searches."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: int = 0
    model: ModelConfig
    data: DataConfig
    pretrain: TrainConfig | None = None
    """How the parent is trained when there are no weights for it; done once, then cached."""
    search_space: str | SpaceConfig = "vit"
    """A name in search_spaces/, a path of such a file, or the space itself."""
    search: SearchConfig
    finetune: FinetuneConfig | None = None
    """How the subnet is trained after the search; by default not at all."""
    latency: LatencyConfig | None = None
    """How the finished subnet is timed; by default not at all."""
    objectives: Annotated[list[Objective], Field(min_length=1)] = [
        Objective(metric="val_top1", direction="maximize"),
        Objective(metric="gmacs", direction="minimize"),
    ]
    sweep: SweepConfig
    resources: ResourcesConfig = ResourcesConfig()

    @model_validator(mode="after")
    def _has_weights(self) -> Self:
        if not (self.pretrain or self.model.pretrained or self.model.checkpoint):
            raise ValueError("has no weights for the parent; give pretrain, model.pretrained or model.checkpoint")
        return self

    @model_validator(mode="after")
    def _measures_what_it_asks_for(self) -> Self:
        asked = {objective.metric for objective in self.objectives} | set(self.sweep.constraints)
        if "latency_ms" in asked and self.latency is None:
            raise ValueError("asks for latency_ms, but does not measure it; give latency, such as {batch_size: 1}")
        return self

    @model_validator(mode="after")
    def _sweeps_fields(self) -> Self:
        for path, param in self.sweep.params.items():
            if not path.startswith(("search.", "finetune.")):
                raise ValueError(f"sweep.params has {path}; fields of search and finetune can be swept")
            for value in param.ends():
                self.with_values({path: value})
        return self

    @model_validator(mode="after")
    def _stops_by_what_is_known(self) -> Self:
        stopping, metrics = self.sweep.early_stopping, [objective.metric for objective in self.objectives]
        if stopping is None:
            return self
        judged = metrics if isinstance(stopping, FrontStopping) else [stopping.metric]
        if isinstance(stopping, FrontStopping) and len(metrics) < 2:
            raise ValueError("sweep.early_stopping.method front needs at least two objectives; use asha or median")
        if judged[0] not in metrics:
            raise ValueError(f"sweep.early_stopping.metric is {judged[0]}, expected an objective: {', '.join(metrics)}")
        if late := [metric for metric in judged if metric not in KNOWN_AT_RUNGS]:
            raise ValueError(
                f"sweep.early_stopping.method {stopping.method} looks at {late[0]}, which is not known before a trial "
                f"ends; in its search there are {', '.join(KNOWN_AT_RUNGS)}"
            )
        swept = self.sweep.params.get("search.epochs")
        least = min([self.search.epochs] if swept is None else swept.ends())
        if not self.rungs(least):
            raise ValueError(
                f"sweep.early_stopping.first_rung is {self.first_rung()}, but a search has {least} epochs; give fewer"
            )
        return self

    def rungs(self, epochs: int) -> tuple[int, ...]:
        """Epochs, from 1, after which a trial may be stopped, whose search has so many; none without early stopping.

        A search that nothing follows is over after its last epoch, which then is no rung.
        """
        stopping = self.sweep.early_stopping
        return () if stopping is None else stopping.rungs(self.first_rung(), epochs - (self.finetune is None))

    def first_rung(self) -> int:
        """The epoch of the first rung.

        Raises:
            ValueError: It has to be given.
        """
        stopping, decided = self.sweep.early_stopping, self.search.decide_by
        if stopping is not None and stopping.first_rung is not None:
            return stopping.first_rung
        if decided.steps is not None:
            raise ValueError("sweep.early_stopping needs first_rung in epochs, as search.decide_by is in steps")
        epochs = self.search.epochs
        return max(1, math.ceil(round(decided.of(Length(epochs, epochs)), 6)) - 1)

    def with_values(self, values: Mapping[str, Any]) -> StudyConfig:
        """The study with other values for fields given by dotted name, without its sweep of them.

        Raises:
            InputError: A name is no field, or a value is not allowed there.
        """
        tree = self.model_dump()
        tree["sweep"] = {"n_trials": self.sweep.n_trials}
        for path, value in values.items():
            set_value(tree, path, value)
        try:
            return StudyConfig.model_validate(tree)
        except ValidationError as error:
            raise InputError(first_error(error, tree, StudyConfig)) from None

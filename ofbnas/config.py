"""Every number a run depends on, read from YAML and checked before anything is spent."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PositiveFloat,
    PositiveInt,
    StrictInt,
    Tag,
    ValidationError,
    model_validator,
)

from ofbnas.errors import InputError
from ofbnas.fields import first_error, set_value

Share = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """A part of a study; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class ModelConfig(Section):
    """The parent model."""

    name: str
    """A name timm.create_model knows."""
    kwargs: dict[str, Any] = {}
    """More arguments for timm.create_model; the data's number of classes is filled in."""
    pretrained: bool = False
    """Load timm's pretrained weights from the hub."""
    checkpoint: Path | None = None
    """Load weights from this .safetensors or .pth file of plain tensors instead."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.pretrained and self.checkpoint:
            raise ValueError("pretrained and checkpoint both name weights; give one")
        return self


class DataConfig(Section):
    """The images. Decisions use the validation split, results the test split."""

    name: Literal["digits", "fashion_mnist"]
    """digits: scikit-learn's 8x8 digits. fashion_mnist: the four IDX files in `path`."""
    path: Path | None = None
    """Folder of the files."""
    val_share: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of the training images set aside for validation, stratified by class."""
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of all images set aside for testing, where the data set has no test split of its own."""
    split_seed: int = 0
    """Seed of both splits."""
    shift: Annotated[int, Field(ge=0)] = 0
    """Training images are moved by up to this many pixels each way."""
    flip: bool = False
    """Training images are mirrored half of the time."""


class TrainConfig(Section):
    """Plain training with AdamW and a cosine schedule."""

    epochs: PositiveInt
    batch_size: PositiveInt = 64
    lr: PositiveFloat = 1e-3
    weight_decay: NonNegative = 0.05
    warmup: Share = 0.1
    """Share of the steps in which the learning rate rises."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    clip_grad: PositiveFloat | None = 1.0
    """Largest norm of the gradient."""


class DistillConfig(Section):
    """Distillation from the dense parent."""

    weight: Share = 0.5
    """Share of the task's loss that comes from the parent's outputs; the rest is cross-entropy."""
    hard: bool = False
    """Learn the parent's predicted classes instead of its probabilities."""
    temperature: PositiveFloat = 2.0
    """Softens both probabilities; without effect if hard."""
    features: NonNegative = 0.0
    """Weight of the cosine distance between final features, on the channels that the subnet kept."""


class FinetuneConfig(TrainConfig):
    """Training of the subnet that a search found."""

    distill: DistillConfig | None = None


class BudgetConfig(Section):
    """What the subnet may cost at most: exactly one of the four."""

    gmacs: PositiveFloat | None = None
    """Multiply-accumulates per image, in units of 1e9."""
    params: PositiveFloat | None = None
    """Parameters."""
    gmacs_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the parent's multiply-accumulates."""
    params_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the parent's parameters."""
    count: Literal["exact", "reference"] = "exact"
    """How multiply-accumulates are counted. exact: what torch's counter counts. reference: by OFB's published formula,
    with biases, norms and softmax and without the class token."""
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """The subnet lies within this share below the budget, as far as the options allow."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if len(given := [name for name, _ in self._limits()]) != 1:
            raise ValueError(
                f"gives {' and '.join(given) or 'nothing'}; give one of gmacs, params, gmacs_share, params_share"
            )
        return self

    def _limits(self) -> Iterator[tuple[str, float]]:
        for name in ("gmacs", "params", "gmacs_share", "params_share"):
            if (value := getattr(self, name)) is not None:
                yield name, value

    def metric(self) -> Literal["macs", "params", "reference_macs"]:
        """What is bounded."""
        if next(self._limits())[0].startswith("params"):
            return "params"
        return "macs" if self.count == "exact" else "reference_macs"

    def limit(self, full: int) -> int:
        """The bound in multiply-accumulates or parameters, for a parent that costs `full`."""
        name, value = next(self._limits())
        return math.floor(value * full if name.endswith("share") else value * (1e9 if name == "gmacs" else 1))


class RampConfig(Section):
    """A value that goes along a straight line from start to end, then stays."""

    start: Share
    end: Share
    warmup: Share = 0.2
    """Share of the search after which the end is reached."""

    def at(self, progress: float) -> float:
        """The value when a share `progress` of the search is over."""
        return _line(self.start, self.end, progress, self.warmup)


class PmimConfig(Section):
    """Progressive masked image modelling."""

    weight: NonNegative = 1.0
    """Weight of the reconstruction, in units of the classification loss; 0 turns it off."""
    start_ratio: Share = 0.05
    """Share of patches hidden at the start."""
    mask_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """Share of patches hidden after the warm-up."""
    warmup: Share = 0.2
    """Share of the search in which the hidden share grows."""
    lr: PositiveFloat = 1e-3
    """Learning rate of the decoder."""

    def hidden_share(self, progress: float) -> float:
        """Share of patches hidden when a share `progress` of the search is over."""
        return _line(self.start_ratio, self.mask_ratio, progress, self.warmup)


def _line(start: float, end: float, progress: float, warmup: float) -> float:
    return end if progress >= warmup else start + (end - start) * progress / warmup


class ImportanceConfig(Section):
    """Where importance starts, and how it is kept small."""

    start: Literal["noise", "taylor", "magnitude"] = "noise"
    """noise: a normal distribution, truncated at two standard deviations. taylor, magnitude: the same distribution's
    quantiles, in the order of the trained parent's saliency."""
    start_batches: PositiveInt = 10
    """Training batches that Taylor saliency is averaged over."""
    mean: float = 0.0
    """Mean of importance at the start."""
    std: PositiveFloat = 0.2
    """Standard deviation of importance at the start."""
    norm_attn: NonNegative = 4e-4
    """Weight of the sum of sigma(s) over attention units."""
    norm_mlp: NonNegative = 1e-4
    norm_embed: NonNegative = 1e-4


class SearchConfig(TrainConfig):
    """One search. Defaults follow OFB (arXiv 2403.15835) where its schedule is not tied to ImageNet."""

    budget: BudgetConfig
    importance: ImportanceConfig = ImportanceConfig()
    residual_mask: bool = False
    """Let the embedding's mask act on all that blocks write into the residual stream too, not only where it begins."""
    distill: DistillConfig | None = None
    importance_weight: RampConfig = RampConfig(start=0.99, end=0.10)
    """The importance's weight lambda in the bi-mask."""
    alpha_lr: PositiveFloat | None = None
    """Learning rate of the options' logits; by default 12 over the number of steps. Adam moves a logit by about its
    learning rate a step, so a logit then travels as far in a long search as in a short one."""
    alpha_betas: tuple[Share, Share] = (0.5, 0.999)
    one_hot_weight: NonNegative = 0.5
    """Weight of the adaptive one-hot loss and the importance norm."""
    one_hot_warmup: Share = 0.5
    """Share of the search in which the one-hot loss rises from 0 to its weight."""
    one_hot_margin: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Distance that the one-hot loss keeps from its poles."""
    budget_weight: NonNegative = 5.0
    """Weight of the squared distance to the budget."""
    budget_ascent: NonNegative = 0.05
    """Step of the dual ascent on the budget's multiplier."""
    beats_per_epoch: PositiveFloat = 3.0
    """How often per epoch options may die."""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """On a beat an option dies when its probability is at most this over the number of options left."""
    pmim: PmimConfig = PmimConfig()


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


class IntParam(Section):
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


class FloatParam(Section):
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


def _check_range(low: float, high: float, log: bool, step: float | None) -> None:
    if low > high:
        raise ValueError(f"low {low} is above high {high}")
    if log and (low <= 0 or step is not None):
        raise ValueError("log needs low above 0 and no step")


class ChoiceParam(Section):
    """One of a list."""

    choices: Annotated[list[bool | int | float | str | None], Field(min_length=1)]

    def ends(self) -> list[Any]:
        """All values."""
        return list(self.choices)


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


class SweepConfig(Section):
    """What the study tries."""

    n_trials: PositiveInt
    sampler: Literal["tpe", "nsga2", "random", "qmc"] = "tpe"
    """A sampler of Optuna's."""
    params: dict[str, Param] = {}
    """Swept fields of the study by dotted name."""


class Objective(Section):
    """A column of the architecture table to be optimised."""

    metric: Literal["val_top1", "top1", "gmacs", "params", "seconds"]
    direction: Literal["minimize", "maximize"]


class ResourcesConfig(Section):
    """What Ray gives a trial."""

    cpus_per_trial: PositiveFloat = 1
    gpus_per_trial: NonNegative = 0
    max_concurrent: PositiveInt | None = None
    """Trials at a time; by default as many as fit."""
    max_failures: Annotated[int, Field(ge=0)] = 2
    """How often a trial is started again when its process or node is lost."""


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
    finetune: FinetuneConfig
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
    def _sweeps_fields(self) -> Self:
        for path, param in self.sweep.params.items():
            if not path.startswith(("search.", "finetune.")):
                raise ValueError(f"sweep.params has {path}; fields of search and finetune can be swept")
            for value in param.ends():
                self.with_values({path: value})
        return self

    def with_values(self, values: Mapping[str, Any]) -> StudyConfig:
        """The study with other values for fields given by dotted name, without its sweep of them.

        Raises:
            InputError: A name is no field, or a value is not allowed there.
        """
        tree = self.model_dump()
        tree["sweep"]["params"] = {}
        for path, value in values.items():
            set_value(tree, path, value)
        try:
            return StudyConfig.model_validate(tree)
        except ValidationError as error:
            raise InputError(first_error(error, tree, StudyConfig)) from None

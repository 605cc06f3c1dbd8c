"""One search: its budget, importance, options, and masked image modelling."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ofbnas.config.fields import LIMITS
from ofbnas.config.latency import TimedOnConfig
from ofbnas.config.presets import with_preset
from ofbnas.config.renamed import with_current_names
from ofbnas.config.section import (
    Batches,
    Candidates,
    EpochsOrNone,
    Length,
    NonNegative,
    Number,
    OpenShare,
    Positive,
    RampConfig,
    Section,
    Share,
    ShareAbove0,
    ShareBelow1,
    Span,
)
from ofbnas.config.training import DistillConfig, RateConfig, TrainConfig


class BudgetConfig(Section):
    """The highest cost that the subnet may have. Exactly one of the six limits must be given."""

    gmacs: Positive | None = None
    """Multiply-accumulates per image, in units of 1e9."""
    params: Positive | None = None
    """Number of parameters."""
    gmacs_share: ShareAbove0 | None = None
    """Multiply-accumulates per image, as a share of the parent's."""
    params_share: ShareAbove0 | None = None
    """Number of parameters, as a share of the parent's."""
    latency_ms: Positive | None = None
    """Time of a batch, milliseconds. Of plain ViT and DeiT; parts are measured when a search
    begins, and the network that is decided is measured before it is kept."""
    latency_share: ShareAbove0 | None = None
    """Time of a batch, as a share of the parent's; the more reliable of the two on a machine that
    does other work, too."""
    timed_on: TimedOnConfig | None = None
    """What that time depends on; by default one image on one thread of the CPU. Other limits do not
    depend on it."""
    count: Literal["exact", "reference"] = "exact"
    """How multiply-accumulates are counted. exact: as torch's FLOP counter does. reference: by
    OFB's published formula, which includes biases, norms and softmax and leaves out the class
    token."""
    tolerance: OpenShare = 0.02
    """The subnet's cost lies within this share below the limit, as far as the options allow."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = self._limits()
        if len(given) != 1:
            names = " and ".join(given) or "nothing"
            raise ValueError(f"gives {names}; give one of {', '.join(LIMITS)}")
        return self

    def _limits(self) -> dict[str, float]:
        """The limits that are given, by name."""
        limits = {name: getattr(self, name) for name in LIMITS}
        return {name: value for name, value in limits.items() if value is not None}

    def metric(self) -> Literal["macs", "params", "reference_macs", "latency"]:
        """The metric that is limited."""
        (name,) = self._limits()
        if name.startswith("params"):
            return "params"
        if name.startswith("latency"):
            return "latency"
        return "macs" if self.count == "exact" else "reference_macs"

    def limit(self, full: int) -> int:
        """The limit in multiply-accumulates, parameters or nanoseconds, for a parent that costs `full`.

        >>> BudgetConfig(gmacs_share=0.5).limit(1_000_000)
        500000
        """
        ((name, value),) = self._limits().items()
        # Rounded down, since the subnet must not cost more than the limit.
        if name.endswith("share"):
            return math.floor(value * full)
        if name == "gmacs":
            return math.floor(value * 1e9)
        if name == "latency_ms":
            return math.floor(value * 1e6)
        return math.floor(value)


class ImportanceConfig(Section):
    """The initial values of the importance, and the norm that keeps it small."""

    start: Literal["noise", "taylor", "magnitude"] = "taylor"
    """Initial values. noise: random, from a normal distribution truncated at two standard
    deviations. taylor, magnitude: quantiles of a normal distribution, in the order of the trained
    parent's saliency."""
    start_batches: Batches = 10
    """Number of training batches that Taylor saliency is averaged over."""
    mean: Number = 2.0
    """Mean of the initial values."""
    std: Positive = 0.5
    """Standard deviation of the initial values."""
    norm_attn: NonNegative = 4e-4
    """Factor of attention units in the importance norm, which is a sum of sigma(s) over units with
    importance s."""
    norm_mlp: NonNegative = 1e-4
    """Factor of MLP units in the importance norm."""
    norm_embed: NonNegative = 1e-4
    """Factor of embedding channels in the importance norm."""
    norm_weight: NonNegative | None = None
    """Weight of the importance norm; by default one_hot_weight, as in the published code."""


class AlphaConfig(RateConfig):
    """The logits alpha of the options, and their optimizer: Adam without weight decay."""

    lr: Positive | None = None  # type: ignore[assignment]  # the default needs the number of steps
    """Highest learning rate; by default 12 divided by the number of steps until all axes are
    decided. Adam moves a logit by about the learning rate per step, so with the default a logit
    travels equally far in searches of any length."""
    betas: tuple[ShareBelow1, ShareBelow1] = (0.5, 0.999)
    """Adam's betas."""
    spread: NonNegative = 0.01
    """Logits start uniformly distributed between 0 and this. If it is large, chance decides which
    options are removed."""

    def highest(self, length: Length) -> float:
        """The highest learning rate in a phase of some length."""
        return self.lr if self.lr is not None else 12 / length.steps


class PmimConfig(Section):
    """Progressive masked image modelling: hidden patches are reconstructed while axes are open."""

    weight: NonNegative = 1.0
    """Weight of the reconstruction loss, relative to the classification loss; 0 turns it off."""
    start_ratio: Share = 0.05
    """Share of patches hidden at the start."""
    mask_ratio: ShareBelow1 = 0.25
    """Share of patches hidden after the warm-up."""
    warmup: Span = Span(share=0.2)
    """Warm-up in which the share of hidden patches grows."""
    decoder: RateConfig = RateConfig()
    """Learning rate of the decoder."""

    def hidden_share(self, step: int, length: Length) -> float:
        """Share of patches hidden at an optimizer step, from 0, of a phase of some length."""
        ramp = RampConfig(start=self.start_ratio, end=self.mask_ratio, warmup=self.warmup)
        return ramp.at(step, length)


class CompensationConfig(Section):
    """Solving the layers that a cut has left in closed form. It needs no labels."""

    images: Batches = 2048
    """Number of training images."""
    ridge: Positive = 0.01
    """Weight of the pull towards the weights as they are."""


class TrainingFreeConfig(Section):
    """A search without training, which `epochs: 0` asks for. It needs no labels."""

    scoring_images: Batches = 256
    """Number of training images that options are measured on."""
    step: OpenShare = 0.7
    """Share of the cost that one step leaves: a deep cut is made in several steps, and options are
    measured anew after each."""


class RefineConfig(Section):
    """Candidates of the same cost, measured once all axes are decided. It needs no labels."""

    candidates: Candidates = 32
    """How many are measured beside what was decided; with 0, that stays. It has no effect where
    training goes on from searched weights, with a budget in time, or in a search without training."""
    images: Batches = 1024
    """Number of training images: candidates are compensated on one half of them, and compared with
    the parent on the other."""


class SearchConfig(TrainConfig):
    """One search. `preset: reference` starts from the published code's values.

    Spans that concern masks, options and hidden patches refer to the phase that ends with
    `decide_by`: a warm-up of 0.2 takes a fifth of that phase. `epochs` and the schedule of the
    weights' learning rate refer to the whole run.
    """

    epochs: EpochsOrNone
    """Number of epochs; 0 searches without training."""
    training_free: TrainingFreeConfig = TrainingFreeConfig()
    """The search without training that `epochs: 0` asks for; no effect otherwise."""
    compensation: CompensationConfig = CompensationConfig()
    """How the layers that a cut has left are solved."""
    optimizer: Literal["adamw", "adam", "nadamw", "lamb", "lion", "sgd"] = "adamw"
    """Optimizer of the weights, by timm's name. Only those are allowed whose state can be sliced
    when units are removed."""
    budget: BudgetConfig
    """Highest cost of the subnet."""
    importance: ImportanceConfig = ImportanceConfig()
    """Importance of units."""
    residual_mask: bool = True
    """Apply the embedding's mask to everything that blocks write into the residual stream, not only
    where the stream begins."""
    decided_masks: Literal["trainable", "folded"] = "trainable"
    """The mask of an axis once it is decided. trainable: it stays as a trainable gain and is fused
    into the weights at the end. folded: it is multiplied into the weights at once. With the
    parent's `decided_weights` all masks go when the last axis is decided."""
    decided_weights: Literal["parent", "searched"] = "parent"
    """The weights that training goes on from once all axes are decided. parent: those of the
    parent, cut to the units that were chosen, and compensated; a decision at the end of the run,
    which leaves no time to train, keeps the searched ones. searched: those that were trained under
    the masks, as in the published code."""
    refine: RefineConfig = RefineConfig()
    """Whether sizes that were decided compete with others of the same cost, before training goes on
    from the parent's weights."""
    distill: DistillConfig | None = None
    """Distillation during the search; by default none."""
    importance_weight: RampConfig = RampConfig(start=0.99, end=0.10)
    """Weight lambda of the importance in the bi-mask."""
    alpha: AlphaConfig = AlphaConfig()
    """Logits of the options, and their learning rate."""
    one_hot_weight: NonNegative = 0.0
    """Weight of the adaptive one-hot loss and, unless `importance.norm_weight` is given, of the
    importance norm; OFB uses 0.5."""
    one_hot_warmup: Span = Span(share=0.5)
    """Warm-up in which the one-hot loss rises from 0 to its weight."""
    one_hot_margin: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Distance that the argument of the one-hot loss keeps from its poles at 0 and 1."""
    budget_weight: NonNegative = 5.0
    """Weight of the squared distance to the budget."""
    budget_ascent: NonNegative = 0.05
    """Step size of the dual ascent on the budget's Lagrange multiplier."""
    decision_interval: Span = Span(share=1 / 12)
    """Span between two decisions, at which options may be removed."""
    threshold: OpenShare = 0.2
    """A decision removes an option whose probability is at most this, divided by the number of
    options left."""
    decide_by: Span = Span(share=0.25)
    """Part of the run after which all axes that are still open are decided together; the rest of
    the run trains the subnet."""
    pmim: PmimConfig = PmimConfig()
    """Progressive masked image modelling."""

    def open_length(self, length: Length) -> Length:
        """The part of a run in which options are open: at least one step."""
        configured = max(1.0, self.decide_by.of(length))
        steps = min(configured, length.steps)
        return Length(steps, length.epochs * steps / length.steps)

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, value: Any) -> Any:
        # Names first: a preset has the current ones, and a given value must replace the preset's.
        current = with_current_names(value, "search")
        return with_preset(current, "search")

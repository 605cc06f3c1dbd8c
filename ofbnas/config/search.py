"""One search: its budget, importance, options, and masked image modelling."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from ofbnas.config.presets import with_preset
from ofbnas.config.section import Length, NonNegative, RampConfig, Section, Share, Span
from ofbnas.config.training import DistillConfig, RateConfig, TrainConfig


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


class ImportanceConfig(Section):
    """Where importance starts, and how it is kept small."""

    start: Literal["noise", "taylor", "magnitude"] = "taylor"
    """noise: a normal distribution, truncated at two standard deviations. taylor, magnitude: the same distribution's
    quantiles, in the order of the trained parent's saliency."""
    start_batches: PositiveInt = 10
    """Training batches that Taylor saliency is averaged over."""
    mean: float = 2.0
    """Mean of importance at the start."""
    std: PositiveFloat = 0.5
    """Standard deviation of importance at the start."""
    norm_attn: NonNegative = 4e-4
    """Weight of the sum of sigma(s) over attention units."""
    norm_mlp: NonNegative = 1e-4
    norm_embed: NonNegative = 1e-4


class AlphaConfig(RateConfig):
    """The options' logits alpha and their optimizer, an Adam without decay."""

    lr: PositiveFloat | None = None  # type: ignore[assignment]  # the default needs the number of steps
    """Highest learning rate; by default 12 over the steps until all is decided. Adam moves a logit by about its
    learning rate a step, so a logit then travels as far in a long search as in a short one."""
    betas: tuple[Share, Share] = (0.5, 0.999)
    spread: NonNegative = 0.01
    """Logits start uniformly between 0 and this. A wide spread lets chance decide."""

    def highest(self, length: Length) -> float:
        """The learning rate in a run of some length."""
        return self.lr if self.lr is not None else 12 / length.steps


class PmimConfig(Section):
    """Progressive masked image modelling."""

    weight: NonNegative = 1.0
    """Weight of the reconstruction, in units of the classification loss; 0 turns it off."""
    start_ratio: Share = 0.05
    """Share of patches hidden at the start."""
    mask_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """Share of patches hidden after the warm-up."""
    warmup: Span = Span(share=0.2)
    """How long the hidden share grows."""
    decoder: RateConfig = RateConfig()
    """Learning rate of the decoder."""

    def hidden_share(self, step: int, length: Length) -> float:
        """Share of patches hidden at an optimizer step, from 0, of a search."""
        return RampConfig(start=self.start_ratio, end=self.mask_ratio, warmup=self.warmup).at(step, length)


class SearchConfig(TrainConfig):
    """One search. `preset: reference` starts from the published code's values.

    What concerns masks, options and hidden patches is measured by the phase that ends with `decide_by`: a warm-up of
    0.2 is a fifth of that phase. `epochs` and the weights' learning rate go on to the end.
    """

    optimizer: Literal["adamw", "adam", "nadamw", "lamb", "lion", "sgd"] = "adamw"
    """timm's name of the weights' optimizer: one whose moments can follow a unit that is removed."""
    budget: BudgetConfig
    importance: ImportanceConfig = ImportanceConfig()
    residual_mask: bool = True
    """Let the embedding's mask act on all that blocks write into the residual stream too, not only where it begins."""
    decided_masks: Literal["trainable", "folded"] = "trainable"
    """trainable: a decided axis keeps its mask as a gain that is trained on, and fused at the end. folded: the mask is
    multiplied into the weights at once."""
    distill: DistillConfig | None = None
    importance_weight: RampConfig = RampConfig(start=0.99, end=0.10)
    """The importance's weight lambda in the bi-mask."""
    alpha: AlphaConfig = AlphaConfig()
    one_hot_weight: NonNegative = 0.0
    """Weight of the adaptive one-hot loss and the importance norm; OFB has 0.5."""
    one_hot_warmup: Span = Span(share=0.5)
    """How long the one-hot loss rises from 0 to its weight."""
    one_hot_margin: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Distance that the one-hot loss keeps from its poles."""
    budget_weight: NonNegative = 5.0
    """Weight of the squared distance to the budget."""
    budget_ascent: NonNegative = 0.05
    """Step of the dual ascent on the budget's multiplier."""
    beat: Span = Span(share=1 / 12)
    """How much lies between two beats, on which options may die."""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """On a beat an option dies when its probability is at most this over the number of options left."""
    decide_by: Span = Span(share=0.25)
    """How much of the run has passed when the axes that are still open are decided together; the rest trains what was
    found."""
    pmim: PmimConfig = PmimConfig()

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, value: Any) -> Any:
        return with_preset(value, "search")

"""How anything is trained: optimizer, schedule, augmentation, precision, distillation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from ofbnas.config.model import ModelConfig
from ofbnas.config.presets import with_preset
from ofbnas.config.section import NonNegative, Section, Share, Span


class RateConfig(Section):
    """A learning rate and how it goes: up in the warm-up, then down."""

    lr: PositiveFloat = 1e-3
    """Highest learning rate."""
    schedule: Literal["cosine", "poly", "tanh", "constant"] = "cosine"
    """timm's name of the shape after the warm-up."""
    warmup: Span = Span(share=0.1)
    """How long the rate rises."""
    start_share: Share = 0.01
    """Share of the rate that the warm-up starts from."""
    end_share: Share = 0.01
    """Share of the rate that is left at the end."""


class AugmentConfig(Section):
    """What is done to training images beyond the data's own shifts, flips and crops."""

    rand_augment: Annotated[str, Field(pattern=r"^rand-")] | None = None
    """timm's description of a RandAugment, such as rand-m9-mstd0.5-inc1."""
    erasing: Share = 0.0
    """Probability that a rectangle of an image is erased."""
    repeats: PositiveInt = 1
    """Each image of an epoch is taken this often, augmented anew, and the epoch has as much fewer images."""
    mixup: NonNegative = 0.0
    """Alpha of Mixup; 0 turns it off. In a search, images are mixed from the moment all is decided."""
    cutmix: NonNegative = 0.0
    """Alpha of CutMix; 0 turns it off. In a search, from the moment all is decided."""
    mix_prob: Share = 1.0
    """Probability that a batch is mixed."""
    switch_prob: Share = 0.5
    """Where both are on, the probability of CutMix."""


class TrainConfig(RateConfig):
    """Training of a model; a step means one update of the weights."""

    epochs: PositiveInt
    batch_size: PositiveInt = 64
    """Images per step, over all processes."""
    optimizer: str = "adamw"
    """timm's name of an optimizer."""
    betas: tuple[Share, Share] | None = None
    """Of optimizers that have them; by default timm's."""
    weight_decay: NonNegative = 0.05
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    """Each layer's learning rate is this share of the next one's."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    clip_grad: PositiveFloat | None = 1.0
    """Largest gradient, in the measure of `clip_mode`."""
    clip_mode: Literal["norm", "value", "agc"] = "norm"
    accumulate: PositiveInt = 1
    """Parts of a batch that go through the model one after the other, to save memory."""
    amp: Literal["bfloat16", "float16"] | None = None
    """Type of automatic mixed precision."""
    compile: bool = False
    """Compile the model with torch.compile."""
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Stochastic depth of the last block; earlier blocks have less, in proportion."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of an exponential moving average of the weights, which is then the result."""
    augment: AugmentConfig = AugmentConfig()


class DistillConfig(Section):
    """Distillation from a teacher."""

    teacher: ModelConfig | None = None
    """A trained model of timm for the same classes; by default the dense parent. Images are resized and normalised
    for it."""
    weight: Share = 0.5
    """Share of the task's loss that comes from the teacher's outputs; the rest is cross-entropy."""
    hard: bool = False
    """Learn the teacher's predicted classes instead of its probabilities."""
    temperature: PositiveFloat = 2.0
    """Softens both probabilities; without effect if hard."""
    features: NonNegative = 0.0
    """Weight of the distance between final features. From the parent: cosine distance on the channels that the subnet
    kept. From another teacher: between the two tables of likeness that images of a batch have to each other."""


class FinetuneConfig(TrainConfig):
    """Training of the subnet that a search found. `preset: reference` starts from the published code's values."""

    distill: DistillConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, value: Any) -> Any:
        return with_preset(value, "finetune")

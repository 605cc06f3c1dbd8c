"""How anything is trained: optimizer, schedule, augmentation, precision, distillation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ofbnas.config.model import ModelConfig
from ofbnas.config.presets import with_preset
from ofbnas.config.section import (
    BatchSize,
    Epochs,
    EpochsOrNone,
    NonNegative,
    OpenShare,
    Positive,
    Repeats,
    Section,
    Share,
    ShareAbove0,
    ShareBelow1,
    Span,
)

# timm's grammar of a RandAugment: it ignores other words, or fails an assertion while training.
RAND_AUGMENT = (
    r"^rand(-(m\d{1,2}|n\d{1,2}|p[01]?(\.\d{1,4})?|mstd\d{1,3}(\.\d{1,4})?"
    r"|mmax\d{1,2}|inc[01]|t\w{1,20}))+$"
)


class RateConfig(Section):
    """A learning rate and its schedule: it rises during the warm-up, then falls."""

    lr: Positive = 1e-3
    """Highest learning rate."""
    schedule: Literal["cosine", "poly", "tanh", "constant"] = "cosine"
    """Shape of the schedule after the warm-up, by timm's name."""
    warmup: Span = Span(share=0.1)
    """Warm-up in which the learning rate rises."""
    start_share: Share = 0.01
    """Learning rate at the start of the warm-up, as a share of the highest."""
    end_share: Share = 0.01
    """Learning rate at the end of the schedule, as a share of the highest."""


class AugmentConfig(Section):
    """Augmentation of training images, beyond the shifts, flips and crops of the data settings."""

    rand_augment: Annotated[str, Field(pattern=RAND_AUGMENT)] | None = None
    """RandAugment, in timm's notation such as rand-m9-mstd0.5-inc1; by default none."""
    erasing: Share = 0.0
    """Probability that a random rectangle of an image is erased."""
    repeats: Repeats = 1
    """Number of times that each image of an epoch is used, augmented anew each time. An epoch has
    the same number of steps, so it uses that many times fewer different images."""
    mixup: NonNegative = 0.0
    """Alpha of Mixup; 0 turns it off. In a search, images are mixed only once all axes are
    decided."""
    cutmix: NonNegative = 0.0
    """Alpha of CutMix; 0 turns it off. In a search, images are mixed only once all axes are
    decided."""
    mix_prob: Share = 1.0
    """Probability that a batch is mixed."""
    switch_prob: Share = 0.5
    """Probability that a mixed batch uses CutMix rather than Mixup, where both are on."""


class TrainConfig(RateConfig):
    """Training of a model. A step is one update of the weights."""

    epochs: Epochs
    """Number of epochs."""
    batch_size: BatchSize = 64
    """Number of images per step, over all processes."""
    optimizer: str = "adamw"
    """Optimizer of the weights, by timm's name."""
    betas: tuple[ShareBelow1, ShareBelow1] | None = None
    """Betas, for optimizers that have them; by default timm's."""
    weight_decay: NonNegative = 0.05
    """Weight decay. Vectors, such as biases and norms, and what the model exempts have none."""
    layer_decay: ShareAbove0 | None = None
    """Layer-wise decay of the learning rate: each layer's rate is this share of the next
    layer's."""
    loss: Literal["cross_entropy", "bce"] = "cross_entropy"
    """Loss of the labels. bce: binary cross-entropy of each class, averaged over classes, as in
    DeiT III; a mixed image then shows both of its classes fully."""
    label_smoothing: ShareBelow1 = 0.1
    """Label smoothing of that loss; DeiT III has none with bce."""
    clip_grad: Positive | None = 1.0
    """Limit that gradients are clipped to, in the way of `clip_mode`; null turns clipping off."""
    clip_mode: Literal["norm", "value", "agc"] = "norm"
    """How gradients are clipped. norm: by the norm of all together. value: each entry. agc:
    adaptive clipping, by the norm of the weights."""
    accumulate: BatchSize = 1
    """Number of parts that a batch is split into, to save memory: gradients are accumulated over
    them."""
    amp: Literal["bfloat16", "float16"] | None = None
    """Data type of automatic mixed precision; by default off."""
    compile: bool = False
    """Compile the model with torch.compile."""
    drop_path: ShareBelow1 = 0.0
    """Rate of stochastic depth in the last block. It grows linearly from 0 in the first one; at 0,
    the model keeps its own rates."""
    ema: OpenShare | None = None
    """Decay of an exponential moving average of the weights, which is then the result; by default
    off."""
    augment: AugmentConfig = AugmentConfig()
    """Augmentation of training images."""
    # Not in its repr, by which a checkpoint knows the settings that it belongs to.
    evaluate_every: Annotated[EpochsOrNone, Field(repr=False)] = 1
    """Number of epochs after which accuracy and loss on the validation images are measured for the
    history, besides the last epoch; 0 measures them never. It takes time and changes no result."""


class DistillConfig(Section):
    """Distillation from a teacher."""

    teacher: ModelConfig | None = None
    """A trained timm model for the same classes; by default the dense parent. Images are resized
    and normalised for it."""
    weight: Share = 0.5
    """Share of the task's loss that comes from the teacher's outputs; the rest is the loss
    of the labels."""
    hard: bool = False
    """Learn the classes that the teacher predicts, instead of its probabilities."""
    temperature: Positive = 2.0
    """Temperature that softens the probabilities of teacher and student; has no effect if `hard` is
    on."""
    features: NonNegative = 0.0
    """Weight of the distance between final features; 0 turns it off. From the parent: the cosine
    distance on the channels that the subnet kept. From another teacher: the distance between the
    two matrices of cosine similarities among the images of a batch. A model without a classifier
    learns these alone."""


class FinetuneConfig(TrainConfig):
    """Training of the subnet. `preset: reference` starts from the published code's values."""

    distill: DistillConfig | None = None
    """Distillation during fine-tuning; by default none."""

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, value: Any) -> Any:
        return with_preset(value, "finetune")

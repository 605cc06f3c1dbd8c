"""The teacher of a distillation: the dense parent, or any timm model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ofbnas.config import DistillConfig
from ofbnas.models.passes import FeaturesAndOutputs, Passes
from ofbnas.training import losses


@dataclass(frozen=True)
class Normalisation:
    """How images are normalised.

    Attributes:
        mean: Mean per channel, for pixels in 0 to 1.
        std: Standard deviation per channel, for pixels in 0 to 1.
    """

    mean: Sequence[float]
    std: Sequence[float]

    def apply(self, images: Tensor) -> Tensor:
        """Normalised images, from pixels in 0 to 1."""
        mean = _column(self.mean, images)
        std = _column(self.std, images)
        return (images - mean) / std

    def undo(self, images: Tensor) -> Tensor:
        """Pixels in 0 to 1, from normalised images."""
        mean = _column(self.mean, images)
        std = _column(self.std, images)
        return images * std + mean


class Teacher:
    """A trained model in evaluation mode, and the loss of a student that learns from it."""

    def __init__(
        self,
        model: nn.Module,
        config: DistillConfig,
        image_size: tuple[int, int, int] | None = None,
        has: Normalisation | None = None,
        wants: Normalisation | None = None,
    ) -> None:
        """Set up a teacher.

        Args:
            model: A timm model on the data's device.
            config: How much is learned from it, and how. If it names a teacher, features are
                compared by the similarities among images; otherwise the model is the parent, and
                features are compared channel by channel.
            image_size: Input size of the teacher, (channels, height, width); by default as the
                student's.
            has: Normalisation of the student's images.
            wants: Normalisation of the teacher's images; by default, images are not renormalised.
        """
        self.model = model.eval()
        self.config = config
        self.image_size = image_size
        # Any other teacher may be of a family that is not known here, without tokens.
        self.parent = None
        if config.teacher is None:
            self.parent = Passes(self.model)
        self.has = has
        self.wants = wants

    @torch.no_grad()
    def __call__(self, images: Tensor) -> FeaturesAndOutputs:
        """The teacher's features and outputs for the student's images.

        The parent's features are tokens, [batch, tokens, embedding]; another teacher's are pooled,
        [batch, features].
        """
        if self.parent is not None:
            passed: FeaturesAndOutputs = self.parent(images)
            return passed
        model: Any = self.model
        features = model.forward_features(self._adapted(images))
        pooled = model.forward_head(features, pre_logits=True)
        outputs = model.forward_head(features)
        return FeaturesAndOutputs(pooled, outputs)

    def loss(
        self,
        task: Tensor,
        learned: FeaturesAndOutputs,
        taught: FeaturesAndOutputs,
        channels: Tensor,
    ) -> Tensor:
        """The task's loss combined with the distillation losses, [].

        Args:
            task: Loss of the student with the labels, [].
            learned: The student's features, [batch, tokens, channels kept], and outputs.
            taught: The teacher's features and outputs for the same images.
            channels: The parent's channels that the student kept, [channels kept].
        """
        config = self.config
        _, student_outputs = learned
        _, teacher_outputs = taught
        distillation = losses.distillation(
            student_outputs,
            teacher_outputs,
            config.temperature,
            config.hard,
        )
        loss = torch.lerp(task, distillation, config.weight)
        if not config.features:
            return loss
        return loss + self.feature_loss(learned, taught, channels)

    def feature_loss(
        self,
        learned: FeaturesAndOutputs,
        taught: FeaturesAndOutputs,
        channels: Tensor,
    ) -> Tensor:
        """The weighted distance between features, []: all that there is without a classifier.

        Args:
            learned: As for `loss`, and so are the other arguments.
            taught: The teacher's.
            channels: The parent's channels that the student kept.
        """
        student_features, _ = learned
        teacher_features, _ = taught
        if self.parent is not None:
            distance = losses.feature_distance(
                student_features,
                teacher_features,
                channels,
            )
        else:
            # As the teacher's features are pooled, too.
            pooled = student_features.mean(1)
            distance = losses.similarity_distance(pooled, teacher_features)
        return self.config.features * distance

    def _adapted(self, images: Tensor) -> Tensor:
        """The student's images with the teacher's size and normalisation."""
        # Pixels in 0 to 1 in between: grey images have one mean, and the teacher may want three.
        if self.has is not None and self.wants is not None:
            images = self.has.undo(images)
        if self.image_size is not None:
            images = _resized(images, self.image_size)
        if self.has is not None and self.wants is not None:
            images = self.wants.apply(images)
        return images


def _resized(images: Tensor, size: tuple[int, int, int]) -> Tensor:
    """Images with other sides and, if they are grey, with as many channels as colours have.

    Args:
        images: [batch, channels, height, width].
        size: (channels, height, width).
    """
    channels, *sides = size
    is_grey = images.shape[1] == 1
    if is_grey and channels > 1:
        images = images.expand(-1, channels, -1, -1)
    if list(images.shape[2:]) != sides:
        images = nn.functional.interpolate(
            images,
            sides,
            mode="bilinear",
            antialias=True,
        )
    return images


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    """Values per channel, [channels, 1, 1], to broadcast over images."""
    column = torch.tensor(values, device=like.device, dtype=like.dtype)
    return column.view(-1, 1, 1)

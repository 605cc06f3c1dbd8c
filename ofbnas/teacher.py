"""Who a student learns from: the dense parent, or any model of timm's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ofbnas import losses
from ofbnas.config import DistillConfig
from ofbnas.supernet import Passes

Both = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Normalisation:
    """What was taken out of images of 0 to 1, and what they were divided by, per channel."""

    mean: Sequence[float]
    std: Sequence[float]


class Teacher:
    """A trained model in evaluation mode, and the loss of a student that learns from it and from labels."""

    def __init__(
        self,
        model: nn.Module,
        config: DistillConfig,
        image_size: tuple[int, int, int] | None = None,
        has: Normalisation | None = None,
        wants: Normalisation | None = None,
    ) -> None:
        """Take a teacher.

        Args:
            model: A model of timm's on the data's device.
            config: How much is learned from it, and how. With a teacher of its own, features are compared by the
                likeness of images; without, the teacher is the parent, and features by channels.
            image_size: (channels, height, width) it takes; by default as the student.
            has: How the student's images are normalised.
            wants: How the teacher's are; by default alike.
        """
        self.model, self.config, self.image_size = model.eval(), config, image_size
        self.parent = Passes(self.model) if config.teacher is None else None
        self.has, self.wants = has, wants

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Both:
        """Features and outputs: the parent's tokens [batch, tokens, embedding], another's pooled [batch, features]."""
        if self.parent is not None:
            both: Both = self.parent(images)
            return both
        model: Any = self.model
        features = model.forward_features(self._adapted(images))
        return model.forward_head(features, pre_logits=True), model.forward_head(features)

    def loss(self, task: Tensor, learned: Both, taught: Both, channels: Tensor) -> Tensor:
        """The task's loss with the teacher's share, [].

        Args:
            task: Loss of the student with the labels, [].
            learned: The student's features [batch, tokens, channels kept] and outputs [batch, classes].
            taught: What the teacher gave for the same images.
            channels: The parent's channels that the student kept, [channels kept].
        """
        config = self.config
        outputs = losses.distillation(learned[1], taught[1], config.temperature, config.hard)
        loss = torch.lerp(task, outputs, config.weight)
        if not config.features:
            return loss
        if self.parent is not None:
            return loss + config.features * losses.feature_distance(learned[0], taught[0], channels)
        return loss + config.features * losses.likeness_distance(learned[0].mean(1), taught[0])

    def _adapted(self, images: Tensor) -> Tensor:
        """Images as the teacher wants them."""
        if self.has is not None and self.wants is not None:
            images = images * self._column(self.has.std, images) + self._column(self.has.mean, images)
        if self.image_size is not None:
            channels, height, width = self.image_size
            if images.shape[1] == 1 < channels:
                images = images.expand(-1, channels, -1, -1)
            if images.shape[2:] != (height, width):
                images = nn.functional.interpolate(images, (height, width), mode="bilinear", antialias=True)
        if self.has is not None and self.wants is not None:
            images = (images - self._column(self.wants.mean, images)) / self._column(self.wants.std, images)
        return images

    @staticmethod
    def _column(values: Sequence[float], like: Tensor) -> Tensor:
        return torch.tensor(values, device=like.device, dtype=like.dtype).view(-1, 1, 1)

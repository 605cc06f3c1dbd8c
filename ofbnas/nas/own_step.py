"""A step of a search whose weights a user's own optimizer trains."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ofbnas.errors import InputError
from ofbnas.models.passes import FeaturesAndOutputs
from ofbnas.nas.stage import Stage
from ofbnas.training.loop import Losses


class Seen(NamedTuple):
    """A forward pass of which the loss is still to come.

    Attributes:
        passed: What the network gave.
        images: [images, channels, height, width].
        hidden: Patches that were hidden, [images, hidden].
    """

    passed: FeaturesAndOutputs
    images: Tensor
    hidden: Tensor | None


class OwnStep:
    """What one step has computed so far: forward passes, losses, and gradients of the masks."""

    def __init__(self, stage: Stage, number: int) -> None:
        """Begin a step.

        Args:
            stage: The search.
            number: Number of the step, from 0.
        """
        self.stage = stage
        self.number = number
        self._num_passes = 0
        self._seen: Seen | None = None
        self._losses: list[Losses] = []
        self._weight: Tensor | None = None

    def forward(self, images: Tensor) -> Tensor:
        """The outputs for images, of which some patches are hidden."""
        network = self.stage.network
        if self._num_passes == 0:
            self.stage.begin_step(self.number)
            network.optimizers.begin(self.number)
        (hidden,) = self.stage.objective.hide([len(images)], self.number, self._num_passes)
        self._num_passes += 1
        passed: FeaturesAndOutputs = network.passes(images, hidden)
        self._seen = Seen(passed, images, hidden)
        return passed.outputs

    def loss(self, outputs: Tensor, labels: Tensor | None, task: Tensor | None) -> Tensor:
        """The loss of the last forward pass; see `SearchRun.loss`.

        Raises:
            InputError: There was none, or not one of labels and task is given.
        """
        if self._seen is None:
            raise InputError("loss follows a call of model in training mode, once")
        if (labels is None) == (task is None):
            raise InputError("give the labels, or the task's loss")
        objective = self.stage.objective
        if labels is not None:
            task = objective.task(outputs, labels)
        passed, images, hidden = self._seen
        self._seen = None
        # The user's outputs may be rounded otherwise, as Accelerate makes them float32.
        losses = objective.losses(passed._replace(outputs=outputs), images, hidden, task)
        total = objective.total(losses)
        if total.requires_grad:
            total.register_hook(self._weigh)
        self._losses.append({name: value.detach() for name, value in losses.items()})
        return total

    def end(self) -> Losses:
        """Train the masks, and give the mean losses over the parts of the batch.

        Raises:
            InputError: No loss was computed.
        """
        if self._weight is None:
            raise InputError("after_step follows loss, its backward, and a step of your optimizer")
        losses: Losses = {}
        for name in self._losses[0]:
            losses[name] = torch.stack([part[name] for part in self._losses]).mean()
        optimizers = self.stage.network.optimizers  # of masks, which go on as gains once decided
        # Whatever the loss was multiplied with, the masks' gradients are of the loss itself.
        optimizers.divide(self._weight)
        if self.stage.is_open:
            losses |= self.stage.decide_losses(self.number)
        optimizers.apply()
        return losses

    def _weigh(self, gradient: Tensor) -> None:
        """Add by how much a part's loss was multiplied before its gradients were computed."""
        weight = gradient.detach().clone()
        self._weight = weight if self._weight is None else self._weight + weight

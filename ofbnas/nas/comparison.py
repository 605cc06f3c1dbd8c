"""How far a network is from its parent: by probabilities, or by features without a classifier."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from ofbnas import parallel
from ofbnas.models.axes import Axis
from ofbnas.nas.finished_blocks import Skipping, skip_none
from ofbnas.nas.saliency import taylor
from ofbnas.training.data import Epoch
from ofbnas.training.features import LinearCka, has_classifier

Loss = Callable[[Tensor, Tensor], Tensor]
SALIENCY_BATCH_SIZE = 8  # images whose gradients are summed before they are squared


class Comparison(Protocol):
    """A parent's outputs for some images, and how others are compared with them.

    Attributes:
        loss: The negative log likelihood of what `draw` drew, up to constants, [].
    """

    loss: Loss

    def divergence(self, model: nn.Module, skipping: Skipping = skip_none) -> float:
        """How far a model's outputs are from the parent's, 0 or more.

        Args:
            model: In evaluation mode.
            skipping: Gives what blocks give that need not be run.
        """

    def draw(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        """What a model with these outputs says, drawn at random: no labels are needed."""


def comparison_with(parent: nn.Module, images: Sequence[Tensor]) -> Comparison:
    """The comparison that suits a parent.

    Args:
        parent: In evaluation mode.
        images: Batches of this process, [batch, channels, height, width].
    """
    if has_classifier(parent):
        return OfProbabilities(parent, images)
    return OfFeatures(parent, images)


def fisher_saliency(
    model: nn.Module,
    axes: Sequence[Axis],
    images: Sequence[Tensor],
    comparison: Comparison,
    epoch: Epoch,
) -> dict[str, Tensor]:
    """How much each unit matters to what a model says, by its Fisher information.

    Args:
        model: The model.
        axes: Its axes.
        images: Batches of this process, [batch, channels, height, width].
        comparison: Says what the model says, and how probable that is.
        epoch: Gives the random numbers of what is drawn, other ones in each process.

    Returns:
        Axis name to saliency, [units].
    """
    generator = epoch.generator(rank=parallel.shard().rank)
    batches = _fisher_batches(model, images, comparison.draw, generator)
    return taylor(model, axes, batches, comparison.loss)


def _fisher_batches(
    model: nn.Module,
    images: Sequence[Tensor],
    draw: Callable[[Tensor, torch.Generator], Tensor],
    generator: torch.Generator,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Small batches of images and what a model says of them, drawn at random.

    The squared gradients of the log likelihood are then the model's Fisher information.
    """
    for batch in images:
        for part in batch.split(SALIENCY_BATCH_SIZE):
            with torch.no_grad():
                drawn = draw(model(part), generator)
            yield part, drawn.to(part.device)


class OfProbabilities:
    """Comparison by the probabilities of classes: the mean Kullback-Leibler divergence."""

    def __init__(self, parent: nn.Module, images: Sequence[Tensor]) -> None:
        self.images = images
        self.expected = [_log_probabilities(parent, batch) for batch in images]
        self.loss: Loss = nn.functional.cross_entropy

    def divergence(self, model: nn.Module, skipping: Skipping = skip_none) -> float:
        """The mean divergence of a model's probabilities from the parent's."""
        divergence = torch.zeros((), device=self.images[0].device)
        num_images = 0
        for number, expected in enumerate(self.expected):
            images = self.images[number]
            with skipping(number):
                outputs = _log_probabilities(model, images)
            divergence += nn.functional.kl_div(outputs, expected, reduction="sum", log_target=True)
            num_images += len(images)
        parallel.average_([divergence])
        return float(divergence) / num_images

    def draw(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        """Labels drawn from the probabilities, [batch]."""
        probabilities = outputs.softmax(1).cpu()
        return torch.multinomial(probabilities, 1, generator=generator)[:, 0]


class OfFeatures:
    """Comparison by features, which may have another width: one minus their linear CKA."""

    def __init__(self, parent: nn.Module, images: Sequence[Tensor]) -> None:
        self.images = images
        self.expected = [_features(parent, batch) for batch in images]
        self.loss: Loss = _slope

    def divergence(self, model: nn.Module, skipping: Skipping = skip_none) -> float:
        """One minus the linear CKA of a model's features and the parent's."""
        cka = LinearCka()
        for number, expected in enumerate(self.expected):
            with skipping(number):
                features = _features(model, self.images[number])
            cka.add(features, expected)
        return max(0.0, 1.0 - cka.value())

    def draw(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        """Directions in which a normal distribution around the features was met, as `outputs`."""
        return torch.randn(outputs.shape, generator=generator)


def _slope(outputs: Tensor, directions: Tensor) -> Tensor:
    """A loss whose gradient is that of a normal distribution's log likelihood at a drawn point."""
    return (outputs * directions).sum(1).mean()


@torch.no_grad()
def _log_probabilities(model: nn.Module, images: Tensor) -> Tensor:
    logits: Tensor = model(images)
    return logits.log_softmax(1)


@torch.no_grad()
def _features(model: nn.Module, images: Tensor) -> Tensor:
    features: Tensor = model(images)
    return features

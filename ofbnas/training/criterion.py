"""The task's loss: what a classifier learns from labels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import Tensor, nn

TaskLoss = Callable[[Tensor, Tensor], Tensor]
LossName = Literal["cross_entropy", "bce"]


def task_loss(name: LossName, smoothing: float) -> TaskLoss:
    """The loss of a name, as a function of outputs and labels, [].

    Outputs are logits, [images, classes]; labels are classes, [images], or shares of classes where
    images are mixed, [images, classes].

    Args:
        name: As in `TrainConfig.loss`.
        smoothing: Label smoothing.
    """
    if name == "bce":
        return partial(binary_cross_entropy, smoothing=smoothing)
    return nn.CrossEntropyLoss(label_smoothing=smoothing)


def binary_cross_entropy(outputs: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean binary cross-entropy of each class with whether the image shows it, [].

    As in DeiT III (Touvron et al., 2022, arXiv 2204.07118): an image that was mixed of two shows
    both classes fully, whatever their shares.

    Args:
        outputs: Logits, [images, classes].
        labels: Classes, [images], or shares of classes, [images, classes].
        smoothing: Targets are 1 - s + s / classes and s / classes.
    """
    num_classes = outputs.shape[1]
    shown = labels > 0 if labels.ndim > 1 else nn.functional.one_hot(labels, num_classes)
    targets = shown.float() * (1 - smoothing) + smoothing / num_classes
    return nn.functional.binary_cross_entropy_with_logits(outputs.float(), targets)


def name_of(loss: TaskLoss | None) -> str | None:
    """A user's own loss in the settings of a checkpoint: what it is called."""
    return None if loss is None else getattr(loss, "__qualname__", type(loss).__qualname__)

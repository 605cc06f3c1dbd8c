"""How good the features of a model without a classifier are: linear CKA, and nearest neighbours."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from ofbnas import parallel
from ofbnas.config import DistillConfig
from ofbnas.errors import InputError
from ofbnas.training.data import Split

NEIGHBOURS = 20
TEMPERATURE = 0.07  # of the neighbours' votes


def has_classifier(model: nn.Module) -> bool:
    """Whether a timm model's outputs are logits of classes; otherwise they are features."""
    return cast(int, model.num_classes) > 0


def check_task(model: nn.Module, distill: DistillConfig | None, section: str) -> None:
    """Check that a model can be trained: without a classifier, only by a teacher's features.

    Args:
        model: A timm model.
        distill: What it learns from a teacher.
        section: Of the study that configures the training.

    Raises:
        InputError: There is nothing that it could learn.
    """
    if has_classifier(model) or (distill is not None and distill.features):
        return
    raise InputError(
        f"{section}: the model has no classifier (num_classes 0), so labels cannot train it; "
        f"{section}.distill.features above 0 lets it learn its parent's features"
    )


class LinearCka:
    """Linear centred kernel alignment of two kinds of features of the same images.

    It is 1 if one is the other, scaled and rotated, and does not ask for equal widths (Kornblith et
    al., 2019, arXiv 1905.00414). With X and Y centred: |Y'X|^2 / (|X'X| |Y'Y|).
    """

    def __init__(self) -> None:
        self.moments: list[Tensor] = []

    def add(self, features: Tensor, others: Tensor) -> None:
        """Add a batch of both, [batch, width]."""
        x = _with_ones(features)
        y = _with_ones(others)
        moments = [x.T @ x, y.T @ y, x.T @ y]
        if not self.moments:
            self.moments = moments
            return
        for total, moment in zip(self.moments, moments, strict=True):
            total += moment

    def value(self) -> float:
        """The alignment over the images of all processes; to be called once."""
        for total in self.moments:
            parallel.total_(total)
        of_x, of_y, between = map(_centred, self.moments)
        scale = of_x.norm() * of_y.norm()
        return float(between.square().sum() / scale) if scale > 0 else 0.0


@torch.no_grad()
def linear_cka(model: nn.Module, parent: nn.Module, split: Split, batch_size: int = 256) -> float:
    """Linear CKA of a model's features and its parent's over the images of a split.

    Args:
        model: In evaluation mode.
        parent: In evaluation mode, on the same device.
        split: Its labels are not looked at.
        batch_size: Number of images of a forward pass.
    """
    cka = LinearCka()
    for images, _ in split.batches(batch_size, parallel.shard()):
        cka.add(model(images), parent(images))
    return cka.value()


@torch.no_grad()
def knn_top1(model: nn.Module, bank: Split, split: Split, batch_size: int = 256) -> float:
    """Accuracy of nearest neighbours by the features of a model, in percent.

    As for DINO (Caron et al., 2021, arXiv 2104.14294): the 20 images of the bank with the highest
    cosine similarity vote for their classes with weights exp(similarity / 0.07).

    Args:
        model: In evaluation mode.
        bank: Images whose labels are known.
        split: Images to classify. Each of several processes has its share.
        batch_size: Number of images of a forward pass.
    """
    known, classes = _directions(model, bank, batch_size)
    num_neighbours = min(NEIGHBOURS, len(classes))
    num_classes = int(classes.max()) + 1
    counts = torch.zeros(2, dtype=torch.int64, device=classes.device)  # hits, images
    for images, labels in split.batches(batch_size, parallel.shard()):
        similarity = nn.functional.normalize(model(images)) @ known.T
        nearest = similarity.topk(num_neighbours, dim=1)
        weights = (nearest.values / TEMPERATURE).exp()
        votes = weights.new_zeros(len(images), num_classes)
        votes.scatter_add_(1, classes[nearest.indices], weights)
        counts[0] += (votes.argmax(1) == labels).sum()
        counts[1] += len(labels)
    parallel.total_(counts)
    hits = int(counts[0])
    seen = int(counts[1])
    return 100 * hits / seen


def _directions(model: nn.Module, split: Split, batch_size: int) -> tuple[Tensor, Tensor]:
    """Features of length 1, [images, width], and labels, [images], of all images of a split."""
    features = []
    labels = []
    for images, of_batch in split.batches(batch_size):
        features.append(nn.functional.normalize(model(images)))
        labels.append(of_batch)
    return torch.cat(features), torch.cat(labels)


def _with_ones(features: Tensor) -> Tensor:
    """Features in double precision with a column of ones, whose moments are sums and a count."""
    return nn.functional.pad(features.double(), (0, 1), value=1.0)


def _centred(moments: Tensor) -> Tensor:
    """Sums of products about the means, from those of `_with_ones`."""
    num_images = moments[-1, -1]
    return moments[:-1, :-1] - moments[:-1, -1:] @ moments[-1:, :-1] / num_images

"""How well a model classifies: accuracy, loss and calibration."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ofbnas import parallel
from ofbnas.errors import InputError
from ofbnas.training.data import Split

BINS = 15  # of confidence, in the calibration error; Guo et al. use as many


@dataclass(frozen=True)
class Accuracy:
    """How well a model classifies images.

    Attributes:
        top1: Share of images whose class is the most probable one, in percent.
        top5: Share of images whose class is among the five most probable, in percent.
        loss: Mean cross-entropy, in nats.
        ece: Expected calibration error, in percent: the mean distance between the probability that
            the model gives to its prediction and the share of predictions that are right, over 15
            bins of equal width (Guo et al., 2017, arXiv 1706.04599).
    """

    top1: float
    top5: float
    loss: float
    ece: float


@torch.no_grad()
def evaluate(
    model: nn.Module,
    split: Split,
    batch_size: int = 256,
) -> Accuracy:
    """Accuracy, loss and calibration error over all images of a split.

    Each image is counted once, however many processes there are.

    Raises:
        InputError: The split holds fewer or more images than it promises.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    # Sums over images, read only at the end, as reading waits for the device: top-1 hits, top-5
    # hits, images and losses; and for each bin, its hits less their probabilities.
    sums = torch.zeros(4, dtype=torch.float64, device=device)
    gaps = torch.zeros(BINS, dtype=torch.float64, device=device)
    for images, labels in split.batches(batch_size, parallel.shard()):
        outputs = model(images).float()
        num_best = min(5, outputs.shape[1])  # there may be fewer than five classes
        best = outputs.topk(num_best, dim=1).indices
        hits = best == labels[:, None]  # [batch, num_best]
        losses = nn.functional.cross_entropy(outputs, labels, reduction="none")
        count = torch.tensor(len(labels), device=device)
        sums += torch.stack([hits[:, 0].sum(), hits.sum(), count, losses.double().sum()])
        _add_gaps_(gaps, outputs, hits[:, 0])
    model.train(was_training)
    # Sums are added up over processes, not shares: these may have different numbers of images.
    parallel.total_(sums)
    parallel.total_(gaps)
    top1_hits, top5_hits, seen, total_loss = sums.tolist()
    if seen != len(split):
        raise InputError(
            f"{seen:,.0f} images were read of a split that promises {len(split):,}: the data set is "
            "damaged"
        )
    return Accuracy(
        top1=100 * top1_hits / seen,
        top5=100 * top5_hits / seen,
        loss=total_loss / seen,
        ece=100 * float(gaps.abs().sum()) / seen,
    )


@torch.no_grad()
def outputs_and_labels(
    model: nn.Module, split: Split, batch_size: int = 256
) -> tuple[Tensor, Tensor]:
    """What a model in evaluation mode gives for all images of a split, and their labels."""
    outputs = []
    labels = []
    for images, of_batch in split.batches(batch_size):
        outputs.append(model(images).float())
        labels.append(of_batch)
    return torch.cat(outputs), torch.cat(labels)


def _add_gaps_(gaps: Tensor, outputs: Tensor, hits: Tensor) -> None:
    """Add a batch to the hits of each bin less the probabilities of its predictions, in place.

    Args:
        gaps: [bins], float64.
        outputs: Logits, [batch, classes].
        hits: Whether each prediction is right, [batch].
    """
    confidence = outputs.softmax(1).amax(1)
    bins = (confidence * BINS).ceil().long() - 1  # a bin includes its upper end
    gaps.index_add_(0, bins.clamp(0, BINS - 1), hits.double() - confidence.double())

"""Accuracy of a model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ofbnas import parallel
from ofbnas.errors import InputError
from ofbnas.training.data import Split


@dataclass(frozen=True)
class Accuracy:
    """Shares of correctly classified images, in percent.

    Attributes:
        top1: Of images whose class is the most probable one.
        top5: Of images whose class is among the five most probable.
    """

    top1: float
    top5: float


@torch.no_grad()
def evaluate(
    model: nn.Module,
    split: Split,
    batch_size: int = 256,
) -> Accuracy:
    """Top-1 and top-5 accuracy over all images of a split.

    Each image is counted once, however many processes there are.

    Raises:
        InputError: The split holds fewer or more images than it promises.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    # Top-1 hits, top-5 hits and images. They are read only at the end, which waits for the device.
    counts = torch.zeros(3, dtype=torch.int64, device=device)
    for images, labels in split.batches(batch_size, parallel.shard()):
        outputs = model(images)
        num_best = min(5, outputs.shape[1])  # there may be fewer than five classes
        best = outputs.topk(num_best, dim=1).indices
        hits = best == labels[:, None]  # [batch, num_best]
        counts += torch.stack(
            [hits[:, 0].sum(), hits.sum(), torch.tensor(len(labels), device=device)]
        )
    model.train(was_training)
    # Counts are added up over processes, not shares: these may have different numbers of images.
    parallel.total_(counts)
    totals = counts.tolist()
    top1_hits = totals[0]
    top5_hits = totals[1]
    seen = totals[2]
    if seen != len(split):
        raise InputError(
            f"{seen:,} images were read of a split that promises {len(split):,}: the data set is "
            "damaged"
        )
    return Accuracy(top1=100 * top1_hits / seen, top5=100 * top5_hits / seen)

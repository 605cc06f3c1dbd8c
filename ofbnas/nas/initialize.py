"""The beginning of a search: the importance of units, and the logits of options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

import torch
from torch import Tensor, nn

from ofbnas import parallel
from ofbnas.config import SearchConfig
from ofbnas.models.supernet import Supernet
from ofbnas.nas import saliency
from ofbnas.nas.comparison import comparison_with, fisher_saliency
from ofbnas.training.criterion import TaskLoss, task_loss
from ofbnas.training.data import Data, Epoch
from ofbnas.training.features import has_classifier


def initialize_(
    supernet: Supernet,
    data: Data,
    config: SearchConfig,
    seed: int,
    loss: TaskLoss | None = None,
) -> None:
    """Give importance and logits the values that a search begins with.

    Importance follows the saliency of units in the trained model, or is drawn at random; logits are
    always drawn at random.

    Args:
        supernet: Over the trained model, with new masks; they are changed in place.
        data: The data set; saliency may read training images.
        config: Configuration of the search.
        seed: Random seed of the order in which these images are read.
        loss: What saliency is the change of; by default the configuration's loss, without smoothing.
    """
    importance = config.importance
    scores = _saliency(supernet, data, config, seed, loss or task_loss(config.loss, 0.0))
    for name, mask in supernet.masked().items():
        if name in scores:
            start = saliency.normal_scores(scores[name])
        else:
            start = torch.empty_like(mask.importance)
            nn.init.trunc_normal_(start, mean=0, std=1, a=-2, b=2)
        logits = config.alpha.spread * torch.rand_like(mask.logits)
        mask.start_(importance.mean + importance.std * start, logits)

    # Generators of different devices draw different numbers, so the first process' are taken.
    parallel.agree_(supernet.trained().values())


def _saliency(
    supernet: Supernet,
    data: Data,
    config: SearchConfig,
    seed: int,
    loss: TaskLoss,
) -> Mapping[str, Tensor]:
    """Axis name to saliency, [units]; empty if importance starts at random."""
    match config.importance.start:
        case "taylor":
            epoch = Epoch(seed, shard=parallel.shard())
            batches = data.shuffled(config.batch_size, epoch)
            first_batches = islice(batches, config.importance.start_batches)
            if has_classifier(supernet.model):
                return saliency.taylor(supernet.model, supernet.axes, first_batches, loss)
            return _without_labels(supernet, [images for images, _ in first_batches], epoch)
        case "magnitude":
            return saliency.magnitude(supernet.model, supernet.axes)
    return {}


def _without_labels(
    supernet: Supernet,
    images: Sequence[Tensor],
    epoch: Epoch,
) -> Mapping[str, Tensor]:
    """The saliency of units by their Fisher information in the features, [units]."""
    model = supernet.model
    comparison = comparison_with(model, images)
    return fisher_saliency(model, supernet.axes, images, comparison, epoch)

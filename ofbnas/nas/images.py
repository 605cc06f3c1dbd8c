"""The training images that compensation is solved on."""

from __future__ import annotations

from itertools import islice

from torch import Tensor

from ofbnas import parallel
from ofbnas.training.data import Data, Epoch

BATCH_SIZE = 128  # images of a forward pass, over all processes


def first_images(data: Data, num_images: int, seed: int) -> list[Tensor]:
    """This process' part of the first training images, in batches [batch, channels, height, width].

    Args:
        data: Its training split is read.
        num_images: Of all processes together; rounded down to whole batches, at least one.
        seed: Of their order.
    """
    shard = parallel.shard()
    batch_size = min(BATCH_SIZE, data.train_images)
    batch_size -= batch_size % shard.world  # all processes have as many images
    batches = data.shuffled(batch_size, Epoch(seed, shard=shard))
    num_batches = max(1, num_images // BATCH_SIZE)
    return [images for images, _ in islice(batches, num_batches)]

"""The batches of a run: which images a process gets in a step, and the random seeds."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from timm.data.random_erasing import RandomErasing
from torch import Tensor

from ofbnas import parallel
from ofbnas.config import Length, TrainConfig
from ofbnas.errors import InputError
from ofbnas.parallel import Shard
from ofbnas.training.data import Data, Epoch

Parts = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Position:
    """The position of a step in a run.

    Attributes:
        epoch: Number of the epoch, from 0.
        step: Number of the step, from 0, counted over all epochs.
        last_of_epoch: Whether this is the last step of its epoch.
    """

    epoch: int
    step: int
    last_of_epoch: bool


def length_of(data: Data, config: TrainConfig) -> Length:
    """Length of a run, in steps and epochs."""
    batches_per_epoch = data.num_batches(config.batch_size)
    return Length(config.epochs * batches_per_epoch, config.epochs)


def batches(
    data: Data,
    config: TrainConfig,
    seed: int,
    first_epoch: int = 0,
) -> Iterator[tuple[Position, Parts]]:
    """This process' share of each training batch, in the parts that gradients are accumulated over.

    All generators are seeded at the start of each epoch, so a resumed run needs no random state.

    Args:
        data: The data set; its training split is read.
        config: Configuration of the run.
        seed: Random seed of the run.
        first_epoch: Epoch to start with, from 0.

    Raises:
        InputError: The batches cannot be split evenly.
    """
    shard = parallel.shard()
    augment = config.augment
    _check_split(data, config, shard)
    batches_per_epoch = data.num_batches(config.batch_size)
    # On whole batches of normalised images, as timm's own loader does.
    erase = RandomErasing(
        augment.erasing,
        mode="pixel",
        device=str(data.device),
    )
    for epoch in range(first_epoch, config.epochs):
        seed_all(seed, epoch, shard)
        order = Epoch(
            seed,
            epoch,
            augment.repeats,
            augment.rand_augment,
            shard,
        )
        epoch_batches = data.shuffled(config.batch_size, order)
        for index, (images, labels) in enumerate(epoch_batches):
            if augment.erasing:
                images = erase(images)
            step = epoch * batches_per_epoch + index
            position = Position(
                epoch,
                step,
                last_of_epoch=index == batches_per_epoch - 1,
            )
            image_parts = images.chunk(config.accumulate)
            label_parts = labels.chunk(config.accumulate)
            yield position, list(zip(image_parts, label_parts, strict=True))


def _check_split(
    data: Data,
    config: TrainConfig,
    shard: Shard,
) -> None:
    """Check that each process gets the same number of images in each part of a batch.

    Raises:
        InputError: Some images would be left over.
    """
    size = min(config.batch_size, data.train_images)  # one incomplete batch, if there are too few
    mixed = bool(config.augment.mixup or config.augment.cutmix)
    images_per_unit = 2 if mixed else 1  # Mixup pairs the images of a part
    num_parts = shard.world * config.accumulate
    left_over = size % (num_parts * images_per_unit)
    if left_over:
        pairs = ", of pairs that are mixed" if mixed else ""
        raise InputError(
            f"batch_size {size} leaves {left_over} images over when {shard.world} processes take "
            f"{config.accumulate} parts each{pairs}: give a multiple"
        )


def seed_all(
    seed: int,
    epoch: int,
    shard: Shard,
) -> None:
    """Seed torch, numpy and Python for an epoch of one process."""
    # Mixed into one number, so that neighbouring seeds, epochs and ranks draw unrelated numbers.
    sequence = np.random.SeedSequence((seed, epoch, shard.rank))
    number = int(sequence.generate_state(1)[0])
    torch.manual_seed(number)
    np.random.seed(number)  # noqa: NPY002 (timm's Mixup draws from it)
    random.seed(number)

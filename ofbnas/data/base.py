"""What training and evaluation need of a data set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, Self

import torch
from timm.data.auto_augment import rand_augment_transform
from torch import Tensor

from ofbnas.parallel import Shard

Batches = Iterator[tuple[Tensor, Tensor]]


class Epoch(NamedTuple):
    """An epoch of training images: their order, and what is done to them.

    Attributes:
        seed: Of the order and of the augmentation.
        number: From 0; each has an order of its own.
        repeats: How often each image is taken, augmented anew, in an epoch of as many images.
        rand_augment: timm's description of a RandAugment.
        shard: The part of each batch that is wanted.
    """

    seed: int = 0
    number: int = 0
    repeats: int = 1
    rand_augment: str | None = None
    shard: Shard = Shard()

    def generator(self, device: torch.device | str = "cpu", rank: int = 0) -> torch.Generator:
        """A source of randomness for this epoch; another for each rank."""
        return torch.Generator(device).manual_seed((self.seed * 100_003 + self.number) * 1009 + rank)

    def order(self, count: int) -> Tensor:
        """Numbers of `count` images, each `repeats` times in a row."""
        return torch.randperm(count, generator=self.generator()).repeat_interleave(self.repeats)[:count]


class Split(Protocol):
    """Images and labels to evaluate on."""

    def __len__(self) -> int:
        """Images."""

    def to(self, device: torch.device) -> Self:
        """The split with its batches on a device."""

    def batches(self, size: int, shard: Shard = Shard()) -> Batches:  # noqa: B008 (a constant)
        """The shard's images in order, each once: [batch, channels, height, width] and labels [batch]."""


class Data(ABC):
    """A data set: `shuffled` to train on, `val` to decide by, `test` to report.

    Attributes:
        val: Split to decide by.
        test: Split to report.
        num_classes: Number of classes.
        mean: What was taken out of images of 0 to 1, per channel.
        std: What they were divided by, per channel.
    """

    val: Split
    test: Split
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where batches are."""

    @property
    @abstractmethod
    def train_images(self) -> int:
        """Number of training images."""

    @abstractmethod
    def to(self, device: torch.device | str) -> Data:
        """The data set with its batches on a device."""

    @abstractmethod
    def shuffled(self, size: int, epoch: Epoch) -> Batches:
        """One epoch of augmented training batches, each of `size` images over all shards.

        It is the same for the same epoch.
        """

    def num_batches(self, size: int) -> int:
        """Batches of an epoch of `shuffled`: at least 1, and incomplete ones are left out."""
        return max(1, self.train_images // size)


def rand_augment_of(description: str, mean: tuple[int, ...] | int) -> Any:
    """timm's RandAugment on a PIL image, which fills what comes in from outside with the mean colour."""
    return rand_augment_transform(description, {"img_mean": mean})

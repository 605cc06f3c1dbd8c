"""The interface of a data set, as training and evaluation use it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from copy import copy
from typing import Any, NamedTuple, Protocol, Self

import torch
from PIL.Image import Image
from timm.data.auto_augment import posterize, rand_augment_transform
from torch import Tensor

from ofbnas.errors import InputError, one_line
from ofbnas.parallel import Shard

Batches = Iterator[tuple[Tensor, Tensor]]


class Epoch(NamedTuple):
    """An epoch of training images: their order and augmentation.

    Attributes:
        seed: Random seed of order and augmentation.
        number: Number of the epoch, from 0; each epoch has its own order.
        repeats: Number of times that an image is used, augmented anew each time. The epoch keeps
            its length, so it has fewer different images.
        rand_augment: RandAugment in timm's notation.
        shard: The part of each batch that this process gets.
    """

    seed: int = 0
    number: int = 0
    repeats: int = 1
    rand_augment: str | None = None
    shard: Shard = Shard()

    def generator(
        self,
        device: torch.device | str = "cpu",
        rank: int = 0,
    ) -> torch.Generator:
        """A random generator for this epoch; each rank has its own."""
        # Different for up to 100,003 epochs and 1,009 ranks.
        epoch_seed = self.seed * 100_003 + self.number
        seed = epoch_seed * 1009 + rank
        return torch.Generator(device).manual_seed(seed)

    def order(self, count: int) -> Tensor:
        """Indices of images, `count` in all, each `repeats` times in a row."""
        num_different = math.ceil(count / self.repeats)
        # On the CPU, so that the order does not depend on the device that is trained on.
        shuffled = torch.randperm(count, generator=self.generator())
        different = shuffled[:num_different]
        repeated = different.repeat_interleave(self.repeats)
        return repeated[:count]  # the last image may have fewer repeats


class Split(Protocol):
    """Images and labels to evaluate on."""

    def __len__(self) -> int:
        """Number of images."""

    def to(self, device: torch.device) -> Self:
        """The split with its batches on a device."""

    def batches(self, size: int, shard: Shard = Shard()) -> Batches:  # noqa: B008 (a constant)
        """The shard's images, [batch, channels, height, width], and labels, [batch], in order."""


class Data(ABC):
    """A data set: `shuffled` for training, `val` for decisions, `test` for results.

    Attributes:
        val: Validation split, which decisions use.
        test: Test split, which results are reported on.
        num_classes: Number of classes.
        mean: Mean per channel, for pixels in 0 to 1, that images are normalised with.
        std: Standard deviation per channel, for pixels in 0 to 1, that images are normalised with.
    """

    val: Split
    test: Split
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __repr__(self) -> str:
        images = f"{self.train_images:,} + {len(self.val):,} + {len(self.test):,} images"
        kind = type(self).__name__
        return f"{kind}({images} to train, validate and test, of {self.num_classes} classes)"

    @property
    def resizing(self) -> tuple[str, float] | None:
        """How test images are resized: timm's `interpolation` and `crop_pct`; None if unknown."""
        return None

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """The device of batches."""

    @property
    @abstractmethod
    def train_images(self) -> int:
        """Number of training images."""

    @abstractmethod
    def to(self, device: torch.device | str) -> Data:
        """The data set with its batches on a device."""

    @abstractmethod
    def shuffled(self, size: int, epoch: Epoch) -> Batches:
        """One epoch of augmented training batches; equal epochs give equal batches.

        Args:
            size: Number of images of a batch, over all shards.
            epoch: The epoch.
        """

    def num_batches(self, size: int) -> int:
        """Number of batches of an epoch: at least 1; an incomplete last one does not count."""
        return max(1, self.train_images // size)


class PlacedData(Data):
    """A data set whose batches are read one by one, and then put on a device."""

    _device: torch.device

    @property
    def device(self) -> torch.device:
        """The device of batches."""
        return self._device

    def to(self, device: torch.device | str) -> Self:
        """The data set with its batches on a device."""
        other = copy(self)
        other._device = torch.device(device)
        other.val = self.val.to(other._device)
        other.test = self.test.to(other._device)
        return other


def rand_augment_of(description: str, mean: tuple[int, ...] | int) -> Any:
    """timm's RandAugment of a PIL image.

    Args:
        description: RandAugment in timm's notation.
        mean: Mean colour of 0 to 255, which fills areas that come in from outside of the image.

    Raises:
        InputError: timm does not understand the description.
    """
    try:
        transform = rand_augment_transform(description, {"img_mean": mean})
    except (AssertionError, ValueError) as error:
        raise InputError(f"rand_augment {description}: {one_line(error)}") from None
    for step in transform.ops:
        if step.aug_fn is posterize:
            step.aug_fn = _posterized
    return transform


def _posterized(image: Image, bits: int, **more: Any) -> Image:
    """timm's posterization, but at its strongest a bit is left: Pillow 13 refuses to keep none."""
    result: Image = posterize(image, max(1, bits), **more)
    return result

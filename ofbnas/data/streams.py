"""Data sets that are read from front to back, through timm: WebDataset, streamed Hugging Face datasets, TFDS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from functools import partial
from itertools import islice
from typing import Any, Self

import torch
from torch.utils.data import DataLoader, IterableDataset

from ofbnas.data.base import Batches, Epoch
from ofbnas.data.images import ReadData, moved, transform_of
from ofbnas.parallel import Shard

ALL = Shard()


class StreamSplit:
    """A split in the order it is stored; each process reads all of it and keeps its share, so none counts twice."""

    def __init__(self, open_split: Callable[[], Any], settings: dict[str, Any], device: torch.device) -> None:
        self._open, self._settings, self._device = open_split, settings, device
        self._count = int(open_split().reader.num_samples)

    def __len__(self) -> int:
        return self._count

    def to(self, device: torch.device) -> Self:
        """The split with its batches on a device."""
        other = copy(self)
        other._device = device
        return other

    def batches(self, size: int, shard: Shard = ALL) -> Batches:
        """The shard's images in order, each once; the last batch may be smaller."""
        dataset = self._open()
        dataset.reader.dist_rank, dataset.reader.dist_num_replicas = 0, 1
        dataset.transform = transform_of(self._settings, training=False)
        yield from moved(DataLoader(_Share(dataset, shard), size, num_workers=1), self._device)


class StreamData(ReadData):
    """Splits that are read from front to back."""

    def __init__(self, open_split: Callable[..., Any], splits: tuple[str, str, str], settings: dict[str, Any]) -> None:
        """Take splits.

        Args:
            open_split: Opens one: of its name and more arguments of timm.data.create_dataset.
            splits: Names of those to train on, to decide by, and to report.
            settings: Of the images, as `transform_of` takes them.
        """
        self._open, cpu = open_split, torch.device("cpu")
        self._train, val, test = splits
        self._count = int(open_split(self._train, is_training=True).reader.num_samples)
        opened = [StreamSplit(partial(open_split, name), settings, cpu) for name in (val, test)]
        super().__init__(opened[0], opened[1], settings)

    @property
    def train_images(self) -> int:
        """Number of training images."""
        return self._count

    def shuffled(self, size: int, epoch: Epoch) -> Batches:
        """One epoch of augmented training batches in timm's order: shards of the data set, then a window of images."""
        mine = size // epoch.shard.world
        dataset = self._open(self._train, is_training=True, batch_size=mine, seed=epoch.seed)
        dataset.set_epoch(epoch.number)
        dataset.transform = transform_of(self.settings, training=True, rand_augment=epoch.rand_augment)
        batches = self.loader(_Repeated(dataset, epoch.repeats), epoch, batch_size=mine, drop_last=True)
        yield from islice(batches, self.num_batches(size))


class _Share(IterableDataset[Any]):
    """Every so many-th image of a stream."""

    def __init__(self, stream: Any, shard: Shard) -> None:
        self.stream, self.shard = stream, shard

    def __iter__(self) -> Iterator[Any]:
        return islice(iter(self.stream), self.shard.rank, None, self.shard.world)


class _Repeated(IterableDataset[Any]):
    """Each image of a stream several times in a row, augmented anew."""

    def __init__(self, stream: Any, repeats: int) -> None:
        self.stream, self.repeats = stream, repeats

    def __iter__(self) -> Iterator[Any]:
        change, self.stream.transform = self.stream.transform, None
        for image, label in self.stream:
            for _ in range(self.repeats):
                yield change(image), label

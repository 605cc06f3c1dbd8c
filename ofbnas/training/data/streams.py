"""Data sets read from front to back: WebDataset, streamed Hugging Face datasets, TFDS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from functools import partial
from itertools import islice
from typing import Any, Self

import torch
from torch.utils.data import DataLoader, IterableDataset

from ofbnas.parallel import Shard
from ofbnas.training.data.base import Batches, Epoch
from ofbnas.training.data.images import ReadData, to_device, transform_of

ALL = Shard()


class StreamSplit:
    """A split in the order in which it is stored.

    Each process reads all of it and keeps its share, so that no image is counted twice.
    """

    def __init__(
        self,
        open_split: Callable[[], Any],
        settings: dict[str, Any],
        device: torch.device,
    ) -> None:
        self._open = open_split
        self._settings = settings
        self._device = device
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
        # timm must not split the data set between processes, too.
        dataset.reader.dist_rank = 0
        dataset.reader.dist_num_replicas = 1
        dataset.transform = transform_of(self._settings, training=False)
        # One worker, as several would read different parts and change the order of images.
        loader = DataLoader(_Share(dataset, shard), size, num_workers=1)
        yield from to_device(loader, self._device)


class StreamData(ReadData):
    """A data set that is read from front to back."""

    def __init__(
        self,
        open_split: Callable[..., Any],
        settings: dict[str, Any],
        *,
        train: str,
        val: str,
        test: str,
    ) -> None:
        """Open the splits.

        Args:
            open_split: Opens a split, given its name and more arguments of
                timm.data.create_dataset.
            settings: How images are read, as `reading_settings` gives it.
            train: Name of the training split.
            val: Name of the validation split.
            test: Name of the test split.
        """
        cpu = torch.device("cpu")
        train_stream = open_split(train, is_training=True)
        val_split = StreamSplit(partial(open_split, val), settings, cpu)
        test_split = StreamSplit(partial(open_split, test), settings, cpu)
        super().__init__(val_split, test_split, settings)
        self._open = open_split
        self._train = train
        self._count = int(train_stream.reader.num_samples)

    @property
    def train_images(self) -> int:
        """Number of training images."""
        return self._count

    def shuffled(self, size: int, epoch: Epoch) -> Batches:
        """One epoch of augmented training batches.

        timm shuffles the data set's shards, then the images inside a moving window.
        """
        mine = size // epoch.shard.world  # images of a batch that this process reads
        dataset = self._open(
            self._train,
            is_training=True,
            batch_size=mine,
            seed=epoch.seed,
        )
        dataset.set_epoch(epoch.number)
        dataset.transform = transform_of(
            self.settings, training=True, rand_augment=epoch.rand_augment
        )
        images = _Repeated(dataset, epoch.repeats)
        batches = self.loader(images, epoch, batch_size=mine, drop_last=True)
        # Shards may hold different numbers of images, but all processes take as many batches.
        yield from islice(batches, self.num_batches(size))


class _Share(IterableDataset[Any]):
    """A process' share of a stream: every n-th image, for n processes."""

    def __init__(self, stream: Any, shard: Shard) -> None:
        self.stream = stream
        self.shard = shard

    def __iter__(self) -> Iterator[Any]:
        first = self.shard.rank
        step = self.shard.world
        return islice(iter(self.stream), first, None, step)


class _Repeated(IterableDataset[Any]):
    """Each image of a stream several times in a row, augmented anew."""

    def __init__(self, stream: Any, repeats: int) -> None:
        self.stream = stream
        self.repeats = repeats

    def __iter__(self) -> Iterator[Any]:
        # The stream gives images untransformed, so that each repetition is transformed anew.
        transform = self.stream.transform
        self.stream.transform = None
        for image, label in self.stream:
            for _ in range(self.repeats):
                yield transform(image), label

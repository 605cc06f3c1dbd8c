"""A user's own data: torch Datasets and DataLoaders, as they are."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from itertools import islice
from typing import Any, Self

import numpy as np
import torch
from timm.data.loader import PrefetchLoader
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from ofbnas.errors import InputError
from ofbnas.parallel import Shard
from ofbnas.training.data.base import Batches, Data, Epoch, PlacedData

Loader = Any  # torch's DataLoader, or timm's PrefetchLoader, which has no types
Images = Loader | Dataset[Any]
Unpack = Callable[[Any], tuple[Tensor, Tensor]]
ALL = Shard()


def data_from(
    train: Images,
    val: Images,
    test: Images | None = None,
    *,
    num_classes: int,
    unpack: Unpack | None = None,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    workers: int = 0,
) -> Data:
    """A data set made of torch's Datasets or DataLoaders.

    A DataLoader is used as it is, with its sampler, workers and transforms. What these draw from
    torch's, numpy's and Python's generators follows from the seed and the epoch. Where `batch_size`
    is not the size of its training batches, these are cut anew. Under torchrun each process reads
    all batches and keeps its share of each, unless the sampler is a DistributedSampler, which gives
    each process its own.

    Args:
        train: Training images, with their augmentation.
        val: Validation images, which decisions use; a loader has to give each once.
        test: Images that results are reported on. Without them, the validation images are: results
            are then of images that decisions have seen.
        num_classes: Number of classes.
        unpack: Makes images [batch, channels, height, width] and labels [batch] of a batch, such as
            `lambda batch: (batch["pixel_values"], batch["labels"])`. By default a batch has just
            these two.
        mean: Mean per channel, for pixels in 0 to 1, that images are normalised with, which matters
            to a teacher that is normalised otherwise.
        std: Standard deviation per channel, likewise.
        workers: Number of processes that read the images of a Dataset.

    Raises:
        InputError: Something is neither a Dataset nor a DataLoader, or has no length.

    Examples:
        >>> from torch.utils.data import TensorDataset
        >>> digits = TensorDataset(torch.rand(6, 1, 8, 8), torch.arange(6))
        >>> data = data_from(digits, digits, num_classes=6)
        >>> [tuple(images.shape) for images, labels in data.val.batches(4)]
        [(4, 1, 8, 8), (2, 1, 8, 8)]
    """
    splits = {"train": train, "val": val, "test": val if test is None else test}
    for name, images in splits.items():
        if not isinstance(images, DataLoader | PrefetchLoader | Dataset):
            raise InputError(
                f"{name} is a {type(images).__name__}, expected a torch DataLoader or Dataset"
            )
        try:
            _count(images)
        except TypeError:
            raise InputError(
                f"{name} has no length, which schedules need: give its Dataset a __len__, the "
                "number of images of an epoch"
            ) from None
    return OwnData(splits, num_classes, unpack or _pair, (tuple(mean), tuple(std)), workers)


class OwnSplit:
    """A Dataset or DataLoader to evaluate on."""

    def __init__(self, images: Images, unpack: Unpack, workers: int) -> None:
        self._loader = images
        self._unpack = unpack
        self._workers = workers
        self._device = torch.device("cpu")

    def __len__(self) -> int:
        return _count(self._loader)

    def to(self, device: torch.device) -> Self:
        """The split with its batches on a device."""
        other = copy(self)
        other._device = device
        return other

    def batches(self, size: int, shard: Shard = ALL) -> Batches:
        """The shard's images in order, each once; a loader's batches have their own size."""
        loader = self._loader
        if isinstance(loader, Dataset):
            loader = DataLoader(loader, size, num_workers=self._workers)
        for batch in loader:
            images, labels = _share(self._unpack(batch), shard, self._device)
            if len(labels):
                yield images, labels


class OwnData(PlacedData):
    """A user's own Datasets or DataLoaders; `data_from` makes it."""

    def __init__(
        self,
        splits: dict[str, Images],
        num_classes: int,
        unpack: Unpack,
        normalisation: tuple[tuple[float, ...], tuple[float, ...]],
        workers: int,
    ) -> None:
        self.val = OwnSplit(splits["val"], unpack, workers)
        self.test = OwnSplit(splits["test"], unpack, workers)
        self.num_classes = num_classes
        self.mean, self.std = normalisation
        self._train = splits["train"]
        self._unpack = unpack
        self._workers = workers
        self._device = torch.device("cpu")

    @property
    def train_images(self) -> int:
        """Number of training images of an epoch, of all processes."""
        return _count(self._train)

    def shuffled(self, size: int, epoch: Epoch) -> Batches:
        """One epoch of training batches.

        Raises:
            InputError: Something is asked for that only the user's own loader can do.
        """
        if epoch.repeats != 1 or epoch.rand_augment is not None:
            raise InputError(
                "augment.repeats and augment.rand_augment do not apply to data of your own, whose "
                "sampler and transforms augment images"
            )
        loader: Loader = self._train
        if isinstance(loader, Dataset):
            order = [batch.tolist() for batch in epoch.order(self.train_images).split(size)]
            loader = DataLoader(loader, batch_sampler=order, num_workers=self._workers)
        replicas = _replicas(loader)
        if replicas > 1:
            loader.sampler.set_epoch(epoch.number)
        shard = epoch.shard if replicas == 1 else ALL

        per_process = min(size, self.train_images) // replicas
        unpacked = map(self._unpack, _Draws(loader, epoch))
        batches = _recut(unpacked, per_process)
        num_batches = self.num_batches(size)
        number = 0
        for number, batch in enumerate(islice(batches, num_batches), start=1):  # noqa: B007
            yield _share(batch, shard, self._device)
        if number < num_batches:
            raise InputError(
                f"the training loader ended before an epoch of {self.train_images:,} images, which "
                "is the length of its sampler or Dataset"
            )


def _recut(batches: Batches, size: int) -> Batches:
    """Batches of a given size, whatever size they come in; an incomplete last one is left out.

    >>> images = torch.arange(6)
    >>> [labels.tolist() for _, labels in _recut(zip(images.split(3), images.split(3)), 2)]
    [[0, 1], [2, 3], [4, 5]]
    """
    held: tuple[Tensor, ...] = ()
    for batch in batches:
        held = tuple(map(torch.cat, zip(held, batch, strict=True))) if held else batch
        while len(held[1]) >= size:
            images, labels = held
            yield images[:size], labels[:size]
            held = (images[size:], labels[size:])


class _Draws(Iterator[Any]):
    """The batches of a loader, drawn with random states that belong to an epoch.

    The program's own states stay as they are. So equal epochs give equal batches, in all processes,
    whatever else draws random numbers.
    """

    def __init__(self, loader: Loader, epoch: Epoch) -> None:
        seed = epoch.generator().initial_seed()
        with _kept_states():
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002 (transforms draw from it)
            random.seed(seed)
            self._batches = iter(loader)
            self._states = _states()

    def __next__(self) -> Any:
        with _kept_states():
            _set_states(*self._states)
            batch = next(self._batches)
            self._states = _states()
        return batch


def _states() -> tuple[Tensor, Any, Any]:
    """The random states of torch, on the CPU, of numpy and of Python."""
    return torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002


def _set_states(of_torch: Tensor, of_numpy: Any, of_python: Any) -> None:
    torch.set_rng_state(of_torch)
    np.random.set_state(of_numpy)  # noqa: NPY002
    random.setstate(of_python)


@contextmanager
def _kept_states() -> Iterator[None]:
    """Leave the program's random states as they were."""
    states = _states()
    try:
        yield
    finally:
        _set_states(*states)


def _count(images: Images) -> int:
    """Number of images of an epoch, of all processes.

    Raises:
        TypeError: It has no length.
    """
    source: Any = images
    if isinstance(source, PrefetchLoader):
        source = source.loader
    if isinstance(source, DataLoader):
        # A loader that gets whole batches from a sampler, or a stream, has no sampler of images.
        if source.batch_size is not None and not isinstance(source.dataset, IterableDataset):
            return len(source.sampler) * _replicas(source)  # type: ignore[arg-type]
        source = source.dataset
    return len(source)


def _replicas(loader: Loader) -> int:
    """Number of processes that a loader's sampler gives images of their own: 1 for most."""
    return int(getattr(loader.sampler, "num_replicas", 1))


def _share(
    batch: tuple[Tensor, Tensor], shard: Shard, device: torch.device
) -> tuple[Tensor, Tensor]:
    """A process' share of a batch, on a device."""
    images, labels = batch
    mine = shard.of(len(labels))
    return (
        images[mine].to(device, non_blocking=True),
        labels[mine].to(device, non_blocking=True),
    )


def _pair(batch: Any) -> tuple[Tensor, Tensor]:
    """Images and labels of a batch that has just these.

    Raises:
        InputError: It has not.
    """
    if isinstance(batch, list | tuple) and len(batch) == 2:
        images, labels = batch
        if isinstance(images, Tensor) and isinstance(labels, Tensor):
            return images, labels
    has = f"a {type(batch).__name__}"
    if isinstance(batch, dict):
        has += f" of {', '.join(map(str, batch))}"
    raise InputError(
        f"a batch is {has}, expected images and labels: give unpack, a function that makes these "
        "two tensors of a batch"
    )

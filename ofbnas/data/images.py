"""Image data sets of any size whose images can be read in any order: folders, archives, Hugging Face datasets."""

from __future__ import annotations

from copy import copy
from typing import Any, Self

import torch
from timm.data import create_transform
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from ofbnas.data.base import Batches, Data, Epoch, rand_augment_of
from ofbnas.parallel import Shard

ALL = Shard()


class ImageSplit:
    """Images of a split as they are tested: resized, centre-cropped, normalised."""

    def __init__(self, dataset: Any, transform: Any, workers: int, device: torch.device) -> None:
        self.dataset, self.transform, self.workers, self.device = dataset, transform, workers, device

    def __len__(self) -> int:
        return len(self.dataset)

    def to(self, device: torch.device) -> Self:
        """The split with its batches on a device."""
        return type(self)(self.dataset, self.transform, self.workers, device)

    def batches(self, size: int, shard: Shard = ALL) -> Batches:
        """The shard's images in order, each once; the last batch may be smaller."""
        mine = range(len(self))[shard.of(len(self))]
        loader = DataLoader(Subset(_Transformed(self.dataset, self.transform), mine), size, num_workers=self.workers)
        yield from moved(loader, self.device)


class ReadData(Data):
    """What data sets have in common whose batches are read and then moved to a device."""

    def __init__(self, val: Any, test: Any, settings: dict[str, Any]) -> None:
        self.val, self.test, self.settings, self._device = val, test, settings, torch.device("cpu")
        self.num_classes, self.mean, self.std = settings["num_classes"], settings["mean"], settings["std"]

    @property
    def device(self) -> torch.device:
        """Where batches are."""
        return self._device

    def to(self, device: torch.device | str) -> Self:
        """The data set with its batches on a device."""
        other = copy(self)
        other._device = torch.device(device)
        other.val, other.test = (split.to(other._device) for split in (self.val, self.test))
        return other

    def loader(self, dataset: Any, epoch: Epoch, **how: Any) -> Batches:
        """Training batches that processes read, whose randomness follows the epoch."""
        generator = epoch.generator(rank=epoch.shard.rank)
        workers, pin = self.settings["workers"], self._device.type == "cuda"
        return moved(DataLoader(dataset, num_workers=workers, generator=generator, pin_memory=pin, **how), self._device)


class ImageData(ReadData):
    """Splits of images that timm reads in any order."""

    def __init__(self, train: Any, val: Any, test: Any, settings: dict[str, Any]) -> None:
        change, workers = transform_of(settings, training=False), settings["workers"]
        cpu = torch.device("cpu")
        super().__init__(ImageSplit(val, change, workers, cpu), ImageSplit(test, change, workers, cpu), settings)
        self._train = train

    @property
    def train_images(self) -> int:
        """Number of training images."""
        return len(self._train)

    def shuffled(self, size: int, epoch: Epoch) -> Batches:
        """One epoch of augmented training batches."""
        batches = epoch.order(self.train_images).split(size)[: self.num_batches(size)]
        change = transform_of(self.settings, training=True, rand_augment=epoch.rand_augment)
        mine = [batch[epoch.shard.of(len(batch))].tolist() for batch in batches]
        yield from self.loader(_Transformed(self._train, change), epoch, batch_sampler=mine)


class _Transformed(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """A split with a transform: timm's data sets carry only one, but training and testing may share a split."""

    def __init__(self, dataset: Any, transform: Any) -> None:
        self.dataset, self.transform = dataset, transform

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.dataset[index]
        return self.transform(image), label


def transform_of(settings: dict[str, Any], *, training: bool, rand_augment: str | None = None) -> Any:
    """What timm does to a PIL image on its way into a batch."""
    change = create_transform(
        settings["image_size"],
        is_training=training,
        scale=(settings["crop"], 1.0),
        hflip=0.5 if settings["flip"] else 0.0,
        color_jitter=0.0,
        interpolation=settings["interpolation"],
        mean=settings["mean"],
        std=settings["std"],
        crop_pct=settings["crop_pct"],
    )
    if rand_augment is not None:
        before_tensor = next(i for i, step in enumerate(change.transforms) if "Tensor" in type(step).__name__)
        colour = tuple(round(255 * value) for value in settings["mean"])
        change.transforms.insert(before_tensor, rand_augment_of(rand_augment, colour))
    return change


def moved(loader: DataLoader[Any], device: torch.device) -> Batches:
    """A loader's batches on a device."""
    for images, labels in loader:
        yield images.to(device, non_blocking=True), labels.to(device, non_blocking=True)

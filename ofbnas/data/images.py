"""Image data sets of any size whose images can be read in any order: folders, archives, Hugging Face datasets."""

from __future__ import annotations

from copy import copy
from typing import Any

import torch
from timm.data import create_transform
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from ofbnas.data.base import Batches, Data, order, rand_augment_of
from ofbnas.parallel import Shard

ALL = Shard()


class ImageSplit:
    """Images of a split as they are tested: resized, centre-cropped, normalised."""

    def __init__(self, dataset: Any, transform: Any, workers: int, device: torch.device) -> None:
        self.dataset, self.transform, self.workers, self.device = dataset, transform, workers, device

    def __len__(self) -> int:
        return len(self.dataset)

    def to(self, device: torch.device) -> ImageSplit:
        """The split with its batches on a device."""
        return ImageSplit(self.dataset, self.transform, self.workers, device)

    def batches(self, size: int, shard: Shard = ALL) -> Batches:
        """The shard's images in order, each once; the last batch may be smaller."""
        mine = range(len(self))[shard.of(len(self))]
        loader = DataLoader(Subset(_Transformed(self.dataset, self.transform), mine), size, num_workers=self.workers)
        yield from moved(loader, self.device)


class ImageData(Data):
    """Splits of images that timm reads.

    Attributes:
        val: Split to decide by.
        test: Split to report.
        num_classes: Number of classes.
        mean: What was taken out of images of 0 to 1, per channel.
        std: What they were divided by, per channel.
    """

    val: ImageSplit
    test: ImageSplit

    def __init__(self, train: Any, val: Any, test: Any, settings: dict[str, Any]) -> None:
        self._train, self._settings, self._device = train, settings, torch.device("cpu")
        change = transform_of(settings, training=False)
        self.val = ImageSplit(val, change, settings["workers"], self._device)
        self.test = ImageSplit(test, change, settings["workers"], self._device)
        self.num_classes = settings["num_classes"]
        self.mean, self.std = settings["mean"], settings["std"]

    @property
    def device(self) -> torch.device:
        """Where batches are."""
        return self._device

    @property
    def train_images(self) -> int:
        """Number of training images."""
        return len(self._train)

    def to(self, device: torch.device | str) -> ImageData:
        """The data set with its batches on a device."""
        moved = copy(self)
        moved._device = torch.device(device)
        moved.val, moved.test = self.val.to(moved._device), self.test.to(moved._device)
        return moved

    def shuffled(
        self,
        size: int,
        seed: int,
        epoch: int,
        *,
        repeats: int = 1,
        rand_augment: str | None = None,
        shard: Shard = ALL,
    ) -> Batches:
        """One epoch of augmented training batches, read by worker processes whose randomness follows the seed."""
        batches = order(self.train_images, seed, epoch, repeats).split(size)[: self.num_batches(size)]
        mine = [batch[shard.of(len(batch))].tolist() for batch in batches]
        loader = DataLoader(
            _Transformed(self._train, transform_of(self._settings, training=True, rand_augment=rand_augment)),
            batch_sampler=mine,
            num_workers=self._settings["workers"],
            generator=torch.Generator().manual_seed((seed * 100_003 + epoch) * 1009 + shard.rank),
            pin_memory=self._device.type == "cuda",
        )
        yield from moved(loader, self._device)


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

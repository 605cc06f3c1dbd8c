"""Image data sets that can be read in any order: folders, archives, Hugging Face datasets."""

from __future__ import annotations

import re
import warnings
from typing import Any, Self

import torch
from PIL import Image
from timm.data import create_transform
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from ofbnas.errors import InputError, one_line
from ofbnas.parallel import Shard
from ofbnas.training.data.base import Batches, Epoch, PlacedData, rand_augment_of

ALL = Shard()


class ImageSplit:
    """A split for evaluation: images are resized, centre-cropped and normalised."""

    def __init__(
        self,
        dataset: Any,
        transform: Any,
        workers: int,
        device: torch.device,
    ) -> None:
        self.dataset = dataset
        self.transform = transform
        self.workers = workers
        self.device = device

    def __len__(self) -> int:
        return len(self.dataset)

    def to(self, device: torch.device) -> Self:
        """The split with its batches on a device."""
        return type(self)(self.dataset, self.transform, self.workers, device)

    def batches(self, size: int, shard: Shard = ALL) -> Batches:
        """The shard's images in order, each once; the last batch may be smaller."""
        count = len(self)
        mine = range(count)[shard.of(count)]
        transformed = _Transformed(self.dataset, self.transform)
        images = Subset(transformed, mine)
        loader = DataLoader(images, size, num_workers=self.workers)
        yield from to_device(loader, self.device)


class ReadData(PlacedData):
    """Base of data sets whose batches are read by processes and then moved to a device."""

    def __init__(
        self,
        val: Any,
        test: Any,
        settings: dict[str, Any],
    ) -> None:
        self.val = val
        self.test = test
        self.settings = settings
        self.num_classes = settings["num_classes"]
        self.mean = settings["mean"]
        self.std = settings["std"]
        self._device = torch.device("cpu")

    @property
    def resizing(self) -> tuple[str, float]:
        """How test images are resized, by timm's names: `interpolation` and `crop_pct`."""
        return self.settings["interpolation"], self.settings["crop_pct"]

    def loader(
        self,
        dataset: Any,
        epoch: Epoch,
        **options: Any,
    ) -> Batches:
        """Training batches, read by processes whose random seeds follow from the epoch.

        Args:
            dataset: What is read.
            epoch: The epoch.
            options: Further arguments of DataLoader.
        """
        # Copies to a GPU overlap with its work only from pinned memory.
        loader: DataLoader[Any] = DataLoader(
            dataset,
            num_workers=self.settings["workers"],
            generator=epoch.generator(rank=epoch.shard.rank),
            pin_memory=self._device.type == "cuda",
            **options,
        )
        return to_device(loader, self._device)


class ImageData(ReadData):
    """A data set whose images timm reads in any order."""

    def __init__(
        self,
        train: Any,
        val: Any,
        test: Any,
        settings: dict[str, Any],
    ) -> None:
        transform = transform_of(settings, training=False)
        workers = settings["workers"]
        cpu = torch.device("cpu")
        val_split = ImageSplit(val, transform, workers, cpu)
        test_split = ImageSplit(test, transform, workers, cpu)
        super().__init__(val_split, test_split, settings)
        self._train = train

    @property
    def train_images(self) -> int:
        """Number of training images."""
        return len(self._train)

    def shuffled(self, size: int, epoch: Epoch) -> Batches:
        """One epoch of augmented training batches."""
        batches = epoch.order(self.train_images).split(size)
        mine: list[list[int]] = []  # for each batch the images that this process reads
        for batch in batches[: self.num_batches(size)]:
            part = epoch.shard.of(len(batch))
            mine.append(batch[part].tolist())
        transform = transform_of(
            self.settings,
            training=True,
            rand_augment=epoch.rand_augment,
        )
        images = _Transformed(self._train, transform)
        yield from self.loader(images, epoch, batch_sampler=mine)


class _Transformed(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """A split with a transform.

    timm's data sets have a transform of their own, but training and validation images may belong to
    one data set.
    """

    def __init__(self, dataset: Any, transform: Any) -> None:
        self.dataset = dataset
        self.transform = transform

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        try:
            # Pillow warns of images half as large as those it refuses; those are too large, too.
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                image, label = self.dataset[index]
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            name = _name_of(self.dataset, index)
            raise InputError(f"{name}: {one_line(error)}; remove the image") from None
        return self.transform(image), label


def _name_of(dataset: Any, index: int) -> str:
    """The file of an image of a data set, or of a subset of one; its number if it has no file."""
    while isinstance(dataset, Subset):
        index = dataset.indices[index]
        dataset = dataset.dataset
    name = None
    if hasattr(dataset, "filename"):
        name = dataset.filename(index, absolute=True)
    return name or f"image {index} of the data set"


def transform_of(
    settings: dict[str, Any],
    *,
    training: bool,
    rand_augment: str | None = None,
) -> Any:
    """timm's transform from a PIL image to a tensor for a batch.

    Args:
        settings: How images are read, as `reading_settings` gives it.
        training: Whether images are augmented.
        rand_augment: RandAugment in timm's notation.
    """
    transform = create_transform(
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
        # RandAugment takes a PIL image, so it comes just before the step that makes a tensor of it.
        steps = transform.transforms
        makes_tensor = ["Tensor" in type(step).__name__ for step in steps]
        colour = tuple(round(255 * value) for value in settings["mean"])
        step = rand_augment_of(rand_augment, colour)
        steps.insert(makes_tensor.index(True), step)
    return transform


def to_device(loader: DataLoader[Any], device: torch.device) -> Batches:
    """A loader's batches on a device.

    Raises:
        InputError: An image is refused.
    """
    try:
        for images, labels in loader:
            # Without waiting for the copy: later work on the device comes after it anyway.
            images_there = images.to(device, non_blocking=True)
            labels_there = labels.to(device, non_blocking=True)
            yield images_there, labels_there
    except (InputError, Image.DecompressionBombError) as error:
        # The message from a process that reads images is a whole traceback; the error comes last.
        last_line = str(error).strip().splitlines()[-1]
        message = re.sub(r"^[\w.]+Error: ", "", last_line)
        raise InputError(message) from None

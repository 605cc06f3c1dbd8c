"""Image data sets of any size, read by timm: folders, archives, Hugging Face datasets, WebDataset."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.data import create_dataset, create_transform
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset

from ofbnas.data.base import Batches, Data, order, rand_augment_of
from ofbnas.data.small import stratified_split
from ofbnas.errors import InputError
from ofbnas.parallel import Shard

ALL = Shard()
PACKAGES = {"hfds": "datasets", "hfids": "datasets", "wds": "webdataset", "tfds": "tensorflow_datasets"}


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
        yield from _moved(loader, self.device)


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
        change = self._transform(training=False)
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
            _Transformed(self._train, self._transform(training=True, rand_augment=rand_augment)),
            batch_sampler=mine,
            num_workers=self._settings["workers"],
            generator=torch.Generator().manual_seed((seed * 100_003 + epoch) * 1009 + shard.rank),
            pin_memory=self._device.type == "cuda",
        )
        yield from _moved(loader, self._device)

    def _transform(self, *, training: bool, rand_augment: str | None = None) -> Any:
        """What timm does to an image on its way into a batch."""
        s = self._settings
        change = create_transform(
            s["image_size"],
            is_training=training,
            scale=(s["crop"], 1.0),
            hflip=0.5 if s["flip"] else 0.0,
            color_jitter=0.0,
            interpolation=s["interpolation"],
            mean=s["mean"],
            std=s["std"],
            crop_pct=s["crop_pct"],
        )
        if rand_augment is not None:
            before_tensor = next(i for i, step in enumerate(change.transforms) if "Tensor" in type(step).__name__)
            colour = tuple(round(255 * value) for value in s["mean"])
            change.transforms.insert(before_tensor, rand_augment_of(rand_augment, colour))
        return change


class _Transformed(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """A split with a transform: timm's data sets carry only one, but training and testing may share a split."""

    def __init__(self, dataset: Any, transform: Any) -> None:
        self.dataset, self.transform = dataset, transform

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.dataset[index]
        return self.transform(image), label


def image_data(
    name: str,
    *,
    path: Path | None = None,
    num_classes: int,
    train_split: str = "train",
    test_split: str = "validation",
    val_split: str | None = None,
    val_share: float = 0.02,
    split_seed: int = 0,
    train_images: int | None = None,
    workers: int = 4,
    flip: bool = True,
    crop: float = 0.08,
    image_size: Sequence[int] = (3, 224, 224),
    crop_pct: float = 0.875,
    interpolation: str = "bicubic",
    mean: Sequence[float] = (0.485, 0.456, 0.406),
    std: Sequence[float] = (0.229, 0.224, 0.225),
) -> ImageData:
    """Images that timm reads.

    Args:
        name: "folder", or a name that timm.data.create_dataset knows.
        path: Folder of the images, or of the data set's cache.
        num_classes: Number of classes.
        train_split: Name of the training split.
        test_split: Name of the split to report.
        val_split: Name of the split to decide by; by default a share of the training images.
        val_share: That share, stratified by class.
        split_seed: Of that.
        train_images: Number of images that the training split must have.
        workers: Processes that read images.
        flip: Whether training images are mirrored half of the time.
        crop: Training images are crops of at least this share of the area.
        image_size: What the model takes, (channels, height, width).
        crop_pct: Share of the resized image that is taken for testing.
        interpolation: "bilinear", "bicubic" or "random".
        mean: Of each channel, in 0 to 1.
        std: Of each channel.

    Raises:
        InputError: The data cannot be read, or are not what was promised.
    """
    settings = {
        "num_classes": num_classes,
        "workers": workers,
        "flip": flip,
        "crop": crop,
        "image_size": tuple(image_size),
        "crop_pct": crop_pct,
        "interpolation": interpolation,
        "mean": tuple(mean),
        "std": tuple(std),
    }
    mode = "L" if image_size[0] == 1 else "RGB"
    train = _open(name, path, train_split, num_classes, mode)
    test = _open(name, path, test_split, num_classes, mode)
    if train_images is not None and len(train) != train_images:
        raise InputError(
            f"data.path {path}: holds {len(train):,} training images, data.train_images is {train_images:,}"
        )
    if val_split is not None:
        return ImageData(train, _open(name, path, val_split, num_classes, mode), test, settings)
    rest, val = stratified_split(_labels(train), val_share, split_seed)
    return ImageData(Subset(train, rest.tolist()), Subset(train, val.tolist()), test, settings)


def _open(name: str, path: Path | None, split: str, num_classes: int, mode: str) -> Any:
    """A split, as images and labels."""
    if name == "folder":
        if path is None:
            raise InputError("data.path is missing: folder needs the folder of the images")
        if not path.is_dir():
            raise InputError(
                f"data.path {path}: no such folder; give the folder that holds {split}/ with one folder of images for "
                "each class, for example --set data.path=/data/imagenet"
            )
    elif (package := PACKAGES.get(name.partition("/")[0].lower())) and importlib.util.find_spec(package) is None:
        raise InputError(f"data.name {name} needs the package {package}: pip install {package}")
    reader, root = "" if name == "folder" else name, None if path is None else str(path)
    try:
        dataset = create_dataset(reader, root=root, split=split, input_img_mode=mode)
    except (OSError, RuntimeError, ValueError, AssertionError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"data {name}, split {split}, in {path}: cannot be read ({reason})") from None
    if isinstance(dataset, IterableDataset):
        raise InputError(
            f"data.name {name} can only be read from front to back; expected a folder, hfds/... or torch/..."
        )
    classes = getattr(getattr(dataset, "reader", None), "class_to_idx", None)
    if classes and len(classes) != num_classes:
        raise InputError(f"data.path {path}: {split} has {len(classes)} classes, data.num_classes is {num_classes}")
    return dataset


def _labels(dataset: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The label of each image, without opening the images where the reader knows them."""
    samples = getattr(getattr(dataset, "reader", None), "samples", None)
    if samples is not None:
        return np.array([label for _, label in samples], dtype=np.int64)
    return np.array([dataset[index][1] for index in range(len(dataset))], dtype=np.int64)


def _moved(loader: DataLoader[Any], device: torch.device) -> Batches:
    for images, labels in loader:
        yield images.to(device, non_blocking=True), labels.to(device, non_blocking=True)

"""Opening an image data set by the name that timm knows it by, and checking that it is what was promised."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from timm.data import create_dataset
from torch.utils.data import IterableDataset, Subset

from ofbnas.data.images import ImageData
from ofbnas.data.small import stratified_split
from ofbnas.data.streams import StreamData
from ofbnas.errors import InputError

PACKAGES = {"hfds": "datasets", "hfids": "datasets", "wds": "webdataset", "tfds": "tensorflow_datasets"}


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
) -> ImageData | StreamData:
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
    opened = partial(open_split, name, path, num_classes, "L" if image_size[0] == 1 else "RGB")
    train, test = opened(train_split, is_training=True), opened(test_split)
    if train_images is not None and (found := images_in(train)) != train_images:
        raise InputError(f"data.path {path}: holds {found:,} training images, data.train_images is {train_images:,}")
    if isinstance(train, IterableDataset):
        if val_split is None:
            raise InputError(
                f"data.val_split is missing: {name} is read from front to back, so it needs a split to decide by"
            )
        return StreamData(opened, (train_split, val_split, test_split), settings)
    if val_split is not None:
        return ImageData(train, opened(val_split), test, settings)
    rest, val = stratified_split(_labels(train), val_share, split_seed)
    return ImageData(Subset(train, rest.tolist()), Subset(train, val.tolist()), test, settings)


def open_split(name: str, path: Path | None, num_classes: int, mode: str, split: str, **more: Any) -> Any:
    """timm's data set of a split: images and labels.

    Args:
        name: "folder", or a name that timm.data.create_dataset knows.
        path: Folder of the images, or of the data set's cache.
        num_classes: Number of classes it must have.
        mode: PIL's mode of the images, "RGB" or "L".
        split: Name of the split.
        more: More arguments of timm.data.create_dataset.

    Raises:
        InputError: It cannot be read, or has other classes.
    """
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
        dataset = create_dataset(reader, root=root, split=split, input_img_mode=mode, **more)
    except (OSError, RuntimeError, ValueError, AssertionError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"data {name}, split {split}, in {path}: cannot be read ({reason})") from None
    classes = getattr(getattr(dataset, "reader", None), "class_to_idx", None)
    if classes and len(classes) != num_classes:
        raise InputError(f"data.path {path}: {split} has {len(classes)} classes, data.num_classes is {num_classes}")
    return dataset


def images_in(dataset: Any) -> int:
    """Number of images of a split."""
    streamed: Any = isinstance(dataset, IterableDataset)
    return int(dataset.reader.num_samples) if streamed else len(dataset)


def _labels(dataset: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The label of each image, without opening the images where the reader knows them."""
    samples = getattr(getattr(dataset, "reader", None), "samples", None)
    if samples is not None:
        return np.array([label for _, label in samples], dtype=np.int64)
    return np.array([dataset[index][1] for index in range(len(dataset))], dtype=np.int64)

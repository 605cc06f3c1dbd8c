"""Opening an image data set by timm's name for it, and checking that it is what was expected."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from timm.data import create_dataset
from torch.utils.data import IterableDataset, Subset

from ofbnas.errors import InputError, one_line
from ofbnas.training.data.images import ImageData, ImageSplit, transform_of
from ofbnas.training.data.splits import check_apart, check_names, classes_of, images_in, split_path
from ofbnas.training.data.stratified import stratified_split
from ofbnas.training.data.streams import StreamData, StreamSplit

# The package that timm needs for a data set, by the prefix of the data set's name.
PACKAGES = {
    "hfds": "datasets",
    "hfids": "datasets",
    "wds": "webdataset",
    "tfds": "tensorflow_datasets",
}
READERS = (*PACKAGES, "torch")  # all prefixes of names that timm knows
DOWNLOADED = ("hfds", "hfids", "tfds")  # those that may download the data set


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
    **reading: Any,
) -> ImageData | StreamData:
    """An image data set that timm reads.

    Args:
        name: "folder", or a name that timm.data.create_dataset knows.
        path: Folder of the images, or of the data set's cache.
        num_classes: Number of classes.
        train_split: Name of the training split.
        test_split: Name of the test split.
        val_split: Name of the validation split; by default a share of the training images.
        val_share: That share, stratified by class.
        split_seed: Random seed of that split.
        train_images: Number of images that the training split must have.
        reading: How images are read: arguments of `reading_settings`.

    Raises:
        InputError: The data set cannot be read or is not as expected, or splits share images.
    """
    settings = reading_settings(num_classes, **reading)
    named = {"train_split": train_split, "test_split": test_split}
    if val_split is not None:
        named["val_split"] = val_split
    check_names(name, named)
    open_named = _opener(name, path, settings)
    splits: dict[str, Any] = {}
    for split in named.values():
        splits[split] = open_named(split, is_training=split == train_split)
    check_apart(splits)
    train = splits[train_split]
    test = splits[test_split]
    num_images = images_in(train)
    if train_images is not None and num_images != train_images:
        raise InputError(
            f"data.path {path}: holds {num_images:,} training images, data.train_images is "
            f"{train_images:,}"
        )
    if isinstance(train, IterableDataset):
        if val_split is None:
            raise InputError(
                f"data.val_split is missing: {name} is read from front to back, so it needs a "
                "validation split of its own"
            )
        return StreamData(
            open_named,
            settings,
            train=train_split,
            val=val_split,
            test=test_split,
        )

    if val_split is not None:
        return ImageData(train, splits[val_split], test, settings)
    train_indices, val_indices = stratified_split(
        _labels(train),
        val_share,
        split_seed,
    )
    rest = Subset(train, train_indices.tolist())
    val = Subset(train, val_indices.tolist())
    return ImageData(rest, val, test, settings)


def images_to_test(
    name: str,
    *,
    path: Path | None = None,
    num_classes: int,
    test_split: str = "validation",
    **reading: Any,
) -> ImageSplit | StreamSplit:
    """The test split alone; other splits may be missing.

    Args:
        name: "folder", or a name that timm.data.create_dataset knows.
        path: Folder of the images, or of the data set's cache.
        num_classes: Number of classes.
        test_split: Name of the split.
        reading: How images are read: arguments of `reading_settings`.

    Raises:
        InputError: The split cannot be read, or is not as expected.
    """
    settings = reading_settings(num_classes, **reading)
    open_named = _opener(name, path, settings)
    dataset = open_named(test_split)
    check_apart({test_split: dataset})
    cpu = torch.device("cpu")
    if isinstance(dataset, IterableDataset):
        return StreamSplit(partial(open_named, test_split), settings, cpu)
    return ImageSplit(
        dataset,
        transform_of(settings, training=False),
        settings["workers"],
        cpu,
    )


def reading_settings(
    num_classes: int,
    *,
    workers: int = 4,
    flip: bool = True,
    crop: float = 0.08,
    image_size: Sequence[int] = (3, 224, 224),
    crop_pct: float = 0.875,
    interpolation: str = "bicubic",
    mean: Sequence[float] = (0.485, 0.456, 0.406),
    std: Sequence[float] = (0.229, 0.224, 0.225),
) -> dict[str, Any]:
    """How images are read, augmented and brought to a model's input size.

    Args:
        num_classes: Number of classes.
        workers: Number of processes that read images, but at most one for each CPU: more would wait.
        flip: Whether training images are mirrored with probability one half.
        crop: Training images are random crops that cover at least this share of the area.
        image_size: Input size of the model, (channels, height, width).
        crop_pct: Share of the resized image, per side, that is cropped from its centre for testing.
        interpolation: "bilinear", "bicubic" or "random".
        mean: Mean of each channel, for pixels in 0 to 1.
        std: Standard deviation of each channel, for pixels in 0 to 1.
    """
    return {
        "num_classes": num_classes,
        "workers": min(workers, _cpus()),
        "flip": flip,
        "crop": crop,
        "image_size": tuple(image_size),
        "crop_pct": crop_pct,
        "interpolation": interpolation,
        "mean": tuple(mean),
        "std": tuple(std),
    }


def _cpus() -> int:
    """The number of CPUs that this process may use, as far as the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def may_download(name: str) -> bool:
    """Whether opening a data set may download it.

    >>> may_download("hfds/ILSVRC/imagenet-1k"), may_download("folder")
    (True, False)
    """
    prefix = name.partition("/")[0]
    return prefix.lower() in DOWNLOADED


def open_split(
    name: str,
    path: Path | None,
    num_classes: int,
    mode: str,
    split: str,
    **more: Any,
) -> Any:
    """timm's data set of a split: images and labels.

    Args:
        name: "folder", or a name that timm.data.create_dataset knows.
        path: Folder of the images, or of the data set's cache.
        num_classes: Number of classes it must have.
        mode: PIL's mode of the images, "RGB" or "L".
        split: Name of the split.
        more: Further arguments of timm.data.create_dataset.

    Raises:
        InputError: The split cannot be read, or has other classes.
    """
    prefix = name.partition("/")[0].lower()
    is_torch_folder = prefix == "torch" and name.endswith("folder")
    root = path
    if name == "folder" or is_torch_folder:
        root = _folder_of(path, split)
        more["search_split"] = False  # timm would read all of data.path if it found no such folder
    else:
        _check_reader(name, prefix, path)
    reader = "" if name == "folder" else name
    try:
        dataset = create_dataset(
            reader,
            root=None if root is None else str(root),
            split=split,
            input_img_mode=mode,
            **more,
        )
    except (OSError, RuntimeError, ValueError, AssertionError, ImportError) as error:
        raise InputError(
            f"data {name}, split {split}, in {path}: cannot be read ({one_line(error, 200)})"
        ) from None
    classes = classes_of(dataset)
    if classes and len(classes) != num_classes:
        raise InputError(
            f"data.path {path}: {split} has {len(classes)} classes, data.num_classes is "
            f"{num_classes}"
        )
    return dataset


class Contents(NamedTuple):
    """What a folder of images holds.

    Attributes:
        images: Number of training images.
        classes: Number of their classes.
    """

    images: int
    classes: int


def contents_of(path: Path) -> Contents:
    """What a folder with train/ and val/ holds; no image is opened.

    Raises:
        InputError: It has no such folders, or no images.
    """
    split_path(path, "validation")
    folder = split_path(path, "train")
    try:
        train = create_dataset("", root=str(folder), split="train", search_split=False)
    except (OSError, RuntimeError, ValueError, AssertionError) as error:
        raise InputError(f"{folder}: cannot be read ({one_line(error, 200)})") from None
    return Contents(images_in(train), len(classes_of(train)))


def _check_reader(
    name: str,
    prefix: str,
    path: Path | None,
) -> None:
    """Check that timm can read a data set here.

    Raises:
        InputError: Its folder is missing, its prefix is unknown, or a package is not installed.
    """
    if path is None and prefix in ("torch", "wds"):
        raise InputError(f"data.path is missing: {name} needs the folder of its files")
    if prefix not in READERS:
        raise InputError(
            f"data.name {name}: is unknown, expected folder or {'/..., '.join(READERS)}/..."
        )
    package = PACKAGES.get(prefix)
    if package is None:
        return
    if importlib.util.find_spec(package) is None:
        raise InputError(f"data.name {name} needs the package {package}: pip install {package}")


def _folder_of(path: Path | None, split: str) -> Path:
    """The folder of a split of the data set "folder".

    Raises:
        InputError: There is no such folder.
    """
    if path is None:
        raise InputError("data.path is missing: folder needs the folder of the images")
    if not path.is_dir():
        raise InputError(
            f"data.path {path}: no such folder; give the folder that holds {split}/ with one "
            "folder of images for each class, for example --set data.path=/data/imagenet"
        )
    return split_path(path, split)


def _opener(
    name: str,
    path: Path | None,
    settings: dict[str, Any],
) -> Callable[..., Any]:
    """A function that opens a split of a data set by the split's name."""
    num_channels = settings["image_size"][0]
    mode = "L" if num_channels == 1 else "RGB"
    return partial(
        open_split,
        name,
        path,
        settings["num_classes"],
        mode,
    )


def _labels(dataset: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The label of each image; images are opened only if the reader does not know their labels."""
    reader = getattr(dataset, "reader", None)
    targets = getattr(reader, "targets", None)  # of a .tar file, whose samples have no labels
    samples = getattr(reader, "samples", None)
    if targets is not None:
        labels = list(targets)
    elif samples is not None:
        labels = [label for _, label in samples]
    else:
        labels = [dataset[index][1] for index in range(len(dataset))]
    return np.array(labels, dtype=np.int64)

"""Data sets by name: images and labels, split into train, validation and test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ofbnas.config.model import kind_of_data
from ofbnas.errors import InputError
from ofbnas.training.data.base import Data, Epoch, Split
from ofbnas.training.data.images import ImageData
from ofbnas.training.data.made import made_data
from ofbnas.training.data.own import data_from
from ofbnas.training.data.reading import READERS, image_data, images_to_test, may_download
from ofbnas.training.data.small import SIZES, SmallData, SmallSplit, small_data
from ofbnas.training.data.streams import StreamData

__all__ = [
    "READERS",
    "SIZES",
    "Data",
    "Epoch",
    "ImageData",
    "SmallData",
    "SmallSplit",
    "Split",
    "StreamData",
    "data_from",
    "load_data",
    "load_test",
    "may_download",
]

# Settings of an image data set that its test split alone does not need.
TRAINING_FIELDS = ("train_split", "val_split", "val_share", "split_seed", "train_images")


def load_data(name: str, **settings: Any) -> Data:
    """A data set by name.

    Args:
        name: "digits", "fashion_mnist", "folder", a name with a slash that
            timm.data.create_dataset knows, or "module:function", which makes the data set.
        settings: Arguments of `ofbnas.training.data.small.small_data` for the first two, of
            `ofbnas.training.data.made.made_data` for a function, otherwise of
            `ofbnas.training.data.reading.image_data`; a path may be text.

    Raises:
        InputError: The name is unknown, or files are missing or damaged.
    """
    settings = _with_path(settings)
    kind = kind_of_data({"name": name})
    if kind == "images":
        return image_data(name, **settings)
    if kind == "own":
        return made_data(name, **settings)
    if name in SIZES:
        return small_data(name, **settings)
    raise InputError(
        f"data set {name} is unknown, expected one of {', '.join(SIZES)}, folder, timm's "
        "hfds/NAME, or module:function"
    )


def load_test(name: str, **settings: Any) -> Split:
    """The test split of a data set by name; other splits that are stored separately may be missing.

    Args:
        name: As for `load_data`.
        settings: As for `load_data`.

    Raises:
        InputError: The name is unknown, or files are missing or damaged.
    """
    settings = _with_path(settings)
    if kind_of_data({"name": name}) != "images":
        return load_data(name, **settings).test
    for field in TRAINING_FIELDS:
        settings.pop(field, None)
    return images_to_test(name, **settings)


def _with_path(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings, with a path that may have been given as text."""
    if isinstance(settings.get("path"), str):
        return settings | {"path": Path(settings["path"])}
    return settings

"""Data sets by name: images and labels, split into train, validation and test."""

from __future__ import annotations

from typing import Any

from ofbnas.data.base import Data, Epoch, Split
from ofbnas.data.images import ImageData
from ofbnas.data.reading import image_data
from ofbnas.data.small import SIZES, SmallData, SmallSplit, small_data
from ofbnas.data.streams import StreamData
from ofbnas.errors import InputError

__all__ = ["SIZES", "Data", "Epoch", "ImageData", "SmallData", "SmallSplit", "Split", "StreamData", "load_data"]


def load_data(name: str, **settings: Any) -> Data:
    """A data set by name.

    Args:
        name: "digits", "fashion_mnist", "folder", or a name that timm.data.create_dataset knows, with a slash in it.
        settings: The arguments of `ofbnas.data.small.small_data` for the first two, or of
            `ofbnas.data.reading.image_data`.

    Raises:
        InputError: The name is unknown, or files are missing or damaged.
    """
    if name in SIZES:
        return small_data(name, **settings)
    if name == "folder" or "/" in name:
        return image_data(name, **settings)
    raise InputError(f"data set {name} is unknown, expected one of {', '.join(SIZES)}, folder, or timm's hfds/NAME")

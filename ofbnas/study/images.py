"""The images of a study: how its section `data` is read for its model, and recorded in the table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import timm
from timm.data import resolve_data_config

from ofbnas.config import DataConfig, ImageDataConfig, OwnDataConfig, StudyConfig
from ofbnas.config.images import MACHINE_FIELDS
from ofbnas.errors import InputError
from ofbnas.training.data import Data, load_data


def data_of(config: StudyConfig) -> Data:
    """The study's images.

    Raises:
        InputError: They cannot be read, or do not have the size that the model takes.
    """
    model = config.model
    data = load_data(**data_settings(config.data, model.name, model.kwargs))
    if isinstance(config.data, OwnDataConfig):
        _check_size(data, config.data.name, image_size(model.name, model.kwargs))
    return data


def _check_size(data: Data, name: str, expected: tuple[int, int, int]) -> None:
    """Check that images have the size that a model takes.

    Raises:
        InputError: They have another one.
    """
    images, _ = next(iter(data.val.batches(1)))
    size = tuple(images.shape[1:])
    if size != expected:
        raise InputError(
            f"data.name {name}: makes images of {size} (channels, height, width), "
            f"but the model takes {expected}"
        )


def data_settings(data: DataConfig, model: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `load_data`.

    What the section leaves open for images that are resized is taken from the model's own training.

    Args:
        data: The section of a study.
        model: timm's name of the model.
        kwargs: Its arguments, or `input_size` alone: (channels, height, width).

    Raises:
        InputError: The number of means or deviations is not that of the channels.
    """
    settings = data.model_dump()
    if not isinstance(data, ImageDataConfig):
        return settings

    of_model = _of_images(model, kwargs)
    for key in ("mean", "std", "interpolation", "crop_pct"):
        if settings[key] is None:
            settings[key] = of_model[key]
    settings["image_size"] = of_model["input_size"]

    channels = of_model["input_size"][0]
    for key in ("mean", "std"):
        if len(settings[key]) != channels:
            raise InputError(
                f"data.{key} has {len(settings[key])} values for {channels} channels: "
                "give one for each"
            )
    return settings


def _of_images(model: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """timm's settings of the images that a model was trained on, with its arguments in place."""
    known: Any = timm.models.get_pretrained_cfg(model)
    arguments = dict(kwargs)
    side = arguments.get("img_size")
    if isinstance(side, list | tuple):  # which timm writes into a model's folder, but refuses here
        arguments["input_size"] = (arguments.get("in_chans", 3), *side)
    settings: dict[str, Any] = resolve_data_config(
        arguments, pretrained_cfg=known.to_dict() if known else {}
    )
    return settings


def image_size(model: str, kwargs: Mapping[str, Any]) -> tuple[int, int, int]:
    """Channels, height and width of the images that any of timm's models takes."""
    channels, height, width = _of_images(model, kwargs)["input_size"]
    return channels, height, width


def data_record(config: StudyConfig) -> str:
    """What the table records of a study's images, as JSON: enough to read them again elsewhere."""
    return record_of(config.data, config.model.name, config.model.kwargs)


def record_of(data: DataConfig, model: str, kwargs: Mapping[str, Any]) -> str:
    """What the table records of images, as JSON.

    Args:
        data: The section of a study.
        model: timm's name of the model.
        kwargs: As for `data_settings`.
    """
    settings = data_settings(data, model, kwargs)
    fields = type(data).model_fields.keys() - set(MACHINE_FIELDS)
    recorded = {field: settings[field] for field in fields if settings[field] is not None}
    return json.dumps(recorded, sort_keys=True)

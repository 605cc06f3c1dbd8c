"""A study of a model by its name, for a command that is given no YAML file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import huggingface_hub
import timm

from ofbnas.config import StudyConfig
from ofbnas.config.study_file import study_of
from ofbnas.errors import InputError, one_line
from ofbnas.files.documents import parse_json, read_text
from ofbnas.training.data import READERS, SIZES

# How timm names a model that is in a folder, or in a repository of the Hugging Face Hub.
FOLDER = "local-dir:"
HUB = ("hf-hub:", "hf_hub:")
CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
# What such a folder says of the images of its model, by timm's names, which are also those of data.
OF_IMAGES = ("mean", "std", "interpolation", "crop_pct")


def study_of_model(
    name: str,
    *,
    data: str | None,
    checkpoint: Path | None = None,
    num_classes: int | None = None,
    settings: Sequence[str] = (),
) -> StudyConfig:
    """The study that a YAML file with these settings would be.

    Args:
        name: timm's name of a model, or local-dir:DIR, or hf-hub:OWNER/NAME, which is downloaded.
        data: A folder of images, or the name of a data set.
        checkpoint: File of the model's weights; by default those that its name stands for.
        num_classes: Number of the data set's classes; by default the model's.
        settings: Overrides, as for `load_study`.

    Raises:
        InputError: There is no such model, its images are not given, or a setting is not allowed.
    """
    model = named_model(name)
    if data is None:
        raise InputError(
            f"{name[:80]}: is a model, which says nothing about images; give --data DIR, "
            f"or --data NAME such as {', '.join(SIZES)}"
        )
    given: dict[str, Any] = {"name": model.name, "kwargs": model.kwargs}
    if model.num_classes == 0:  # it has no classifier, and shall not get one for the data's classes
        given["kwargs"] = model.kwargs | {"num_classes": 0}
    if checkpoint is not None or model.weights is not None:
        given["checkpoint"] = str((checkpoint or model.weights or Path()).resolve())
    else:
        given["pretrained"] = True
        _check_classes(model, num_classes)
    tree = {
        "name": study_name(name),
        "model": given,
        "data": images_of(data, model, num_classes),
        "search": {"epochs": 0, "budget": {"gmacs_share": 0.5}},
        "sweep": {"n_trials": 1},
    }
    return study_of(tree, name, settings)


@dataclass(frozen=True)
class NamedModel:
    """What a name stands for.

    Attributes:
        name: timm's name of it.
        num_classes: Of its weights; 0 if it has no classifier.
        kwargs: Arguments of timm.create_model.
        weights: File of its weights; None for those that timm downloads.
        of_images: Fields of a study's data that it says.
    """

    name: str
    num_classes: int
    kwargs: dict[str, Any] = field(default_factory=dict)
    weights: Path | None = None
    of_images: dict[str, Any] = field(default_factory=dict)


def named_model(name: str) -> NamedModel:
    """The model that a name stands for.

    Raises:
        InputError: It stands for none.
    """
    if name.startswith(FOLDER):
        return _in_folder(Path(name.removeprefix(FOLDER)).expanduser(), name)
    for prefix in HUB:
        if name.startswith(prefix):
            return _in_folder(_downloaded(name.removeprefix(prefix)), name)
    if not timm.is_model(name):
        raise InputError(
            f"{name[:80]!r} is neither a study's .yaml file nor a model of timm; "
            "`ofbnas space list` has the models"
        )
    known = timm.models.get_pretrained_cfg(name)
    return NamedModel(name, 1000 if known is None else known.num_classes)


def _in_folder(folder: Path, name: str) -> NamedModel:
    """The model of a folder that timm.models.save_for_hf wrote.

    Raises:
        InputError: The folder holds no such model.
    """
    try:
        text = read_text(folder / CONFIG, "a model's configuration")
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{name[:200]}: has no {CONFIG}, expected a model of timm") from None
    config = parse_json(text, folder / CONFIG)
    if not isinstance(config, dict) or not isinstance(config.get("architecture"), str):
        raise InputError(f"{folder / CONFIG}: names no architecture, expected a model of timm")
    sections = [config.get(key, {}) for key in ("model_args", "pretrained_cfg")]
    if not all(isinstance(section, dict) for section in sections):
        raise InputError(
            f"{folder / CONFIG}: model_args and pretrained_cfg must be keys and values"
        )
    kwargs, of_images = sections
    weights = [folder / file for file in WEIGHTS if (folder / file).is_file()]
    if not weights:
        raise InputError(f"{name[:200]}: has no weights, expected {' or '.join(WEIGHTS)}")

    kwargs.pop("num_classes", None)  # the data set says it
    return NamedModel(
        config["architecture"],
        config.get("num_classes", 1000),
        kwargs,
        weights[0],
        {key: of_images[key] for key in OF_IMAGES if key in of_images},
    )


def _downloaded(repository: str) -> Path:
    """The folder of a model of the Hugging Face Hub, in the Hub's own cache.

    Raises:
        InputError: It could not be downloaded.
    """
    repo_id, _, revision = repository.partition("@")
    try:
        folder = huggingface_hub.snapshot_download(
            repo_id, revision=revision or None, allow_patterns=[CONFIG, WEIGHTS[0]]
        )
    except (OSError, ValueError) as error:  # those of the network, and a name that cannot be
        reason = one_line(error, 200)
        raise InputError(f"model {repository[:80]} could not be downloaded ({reason})") from None
    return Path(folder)


def _check_classes(model: NamedModel, num_classes: int | None) -> None:
    """Check that timm's weights have a classifier for so many classes.

    Raises:
        InputError: They have one for another number.
    """
    if model.num_classes and num_classes not in (None, model.num_classes):
        raise InputError(
            f"--num-classes {num_classes}: timm's weights of {model.name} are for "
            f"{model.num_classes} classes; give the file of others as --checkpoint"
        )


def study_name(name: str) -> str:
    """What a study of a model is called.

    >>> study_name("hf-hub:me/small vit")
    'hf-hub-me-small-vit'
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:128]


def images_of(given: str, model: NamedModel, num_classes: int | None) -> dict[str, Any]:
    """The section data for a folder or the name of a data set.

    Raises:
        InputError: It is neither.
    """
    if given in SIZES:
        small: dict[str, Any] = {"name": given}
        return small if num_classes is None else small | {"num_classes": num_classes}
    if not num_classes and not model.num_classes:
        raise InputError(
            f"{model.name} has no classifier, so nothing says how many classes {given[:80]} has; "
            "give --num-classes"
        )
    images = model.of_images | {"num_classes": num_classes or model.num_classes}
    if given.partition("/")[0] in READERS:
        return images | {"name": given}
    folder = Path(given).expanduser()
    if not folder.is_dir():
        raise InputError(
            f"--data {given[:200]}: no such folder; expected one of images, or a data set such as "
            f"{', '.join(SIZES)}, hfds/ILSVRC/imagenet-1k"
        )
    return images | {"name": "folder", "path": str(folder.resolve())}

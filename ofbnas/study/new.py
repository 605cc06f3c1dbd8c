"""The study that a newcomer would write for a model and a folder of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ofbnas.config import ImageDataConfig
from ofbnas.config.commented import commented
from ofbnas.config.fields import set_below
from ofbnas.config.study_file import load_study, study_of
from ofbnas.errors import InputError
from ofbnas.files import durable
from ofbnas.study.images import data_settings
from ofbnas.study.of_model import NamedModel, images_of, named_model, study_name
from ofbnas.study.parent import check_weights
from ofbnas.training.data.reading import Contents, contents_of

# How many validation images decide well, and the largest share of the training images given to them.
ENOUGH_TO_DECIDE = 500
MOST_TO_DECIDE = 0.2
FROM_MODEL = ("mean", "std", "interpolation", "crop_pct")


def write_study(
    name: str,
    data: str,
    file: Path,
    *,
    checkpoint: Path | None = None,
    num_classes: int | None = None,
    settings: Sequence[str] = (),
) -> list[str]:
    """Write a commented study for a model and its images.

    Args:
        name: timm's name of a model, or local-dir:DIR, or hf-hub:OWNER/NAME.
        data: A folder of images with train/ and val/, or the name of a data set.
        file: The file to write.
        checkpoint: File of the model's weights; by default those that its name stands for.
        num_classes: Number of classes, where the images do not say it.
        settings: Further fields, such as "model.kwargs.img_size=96".

    Returns:
        What the user should know about the study, in sentences.

    Raises:
        InputError: The file exists, there is no such model or data, or they do not fit together.
    """
    if file.exists():
        raise InputError(f"{file}: exists, and is not overwritten; give --output another name")
    model = named_model(name)
    folder = Path(data).expanduser()
    contents = contents_of(folder) if folder.is_dir() else None
    if contents is not None and num_classes not in (None, contents.classes):
        raise InputError(
            f"--num-classes {num_classes}: {data} has {contents.classes} classes; leave it out"
        )
    images = images_of(data, model, contents.classes if contents else num_classes)
    weights = checkpoint or model.weights
    tree: dict[str, Any] = {"name": study_name(name), "seed": 0}
    tree["model"] = {"name": model.name}
    if model.kwargs:
        tree["model"]["kwargs"] = dict(model.kwargs)
    tree["data"] = images if contents is None else _of_folder(images, contents)
    if weights is not None:
        tree["model"]["checkpoint"] = str(weights.resolve())
    elif images.get("num_classes") == model.num_classes:
        tree["model"]["pretrained"] = True
    else:
        tree["pretrain"] = {"epochs": 100, "lr": 1e-3}
    tree |= _search(has_weights="pretrain" not in tree)
    set_below(tree, settings, "", "a field and its value, for example --set search.epochs=10")

    study = study_of(tree, name)
    check_weights(study)  # refuses a model that cannot be searched, or weights of another one
    if isinstance(study.data, ImageDataConfig):
        of_model = data_settings(study.data, study.model.name, study.model.kwargs)
        for field in FROM_MODEL:
            value = of_model[field]
            tree["data"].setdefault(field, list(value) if isinstance(value, tuple) else value)
    durable.write(file, f"{_header(file, name)}{commented(tree)}")
    load_study(file)
    return _notes(model, contents, "pretrain" in tree)


def _header(file: Path, name: str) -> str:
    """The lines above the fields."""
    return f"""# A study of {name}.
#
#   ofbnas study plan {file}             what it would search, and what it would cost
#   ofbnas study plan {file} --measure   also the front that it would begin from
#   ofbnas study run {file}              run it, or resume it
#
# These are the fields that one changes first. `ofbnas study schema` has all of them, for editors.

"""


def _of_folder(images: dict[str, Any], contents: Contents) -> dict[str, Any]:
    """The section data of a folder, with what the folder says."""
    share = min(MOST_TO_DECIDE, ENOUGH_TO_DECIDE / contents.images)
    ordered = {key: images[key] for key in ("name", "path", "num_classes")}
    ordered["train_images"] = contents.images
    ordered["val_share"] = max(0.02, math.ceil(100 * share) / 100)
    return ordered | images


def _search(*, has_weights: bool) -> dict[str, Any]:
    """The sections that say what is searched, and how."""
    # Weights that are trained already are changed in smaller steps.
    rate = 1e-4 if has_weights else 1e-3
    return {
        "search_space": "vit",
        "search": {
            "epochs": 30,
            "batch_size": 64,
            "lr": rate,
            "budget": {"gmacs_share": 0.5},
            "distill": {"weight": 0.5, "temperature": 2.0},
        },
        "objectives": [
            {"metric": "val_top1", "direction": "maximize"},
            {"metric": "gmacs", "direction": "minimize"},
        ],
        "sweep": {
            "n_trials": 8,
            "sampler": "tpe",
            "params": {"search.budget.gmacs_share": {"low": 0.2, "high": 0.8}},
        },
        "resources": {"cpus_per_trial": 1, "gpus_per_trial": int(torch.cuda.is_available())},
    }


def _notes(model: NamedModel, contents: Contents | None, pretrains: bool) -> list[str]:
    """What is worth knowing before the study is run."""
    notes = []
    if contents is not None:
        notes.append(
            f"{contents.images:,} training images of {contents.classes} classes were found."
        )
        if contents.images * MOST_TO_DECIDE < ENOUGH_TO_DECIDE:
            notes.append("They are few: accuracy on so few validation images is uncertain.")
    if pretrains:
        notes.append(
            f"The weights that timm has for {model.name} are not for these classes, so the study "
            "trains the parent itself; with weights of your own, give --checkpoint FILE."
        )
    return notes

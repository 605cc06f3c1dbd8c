"""ofbnas evaluate: a subnet's accuracy, measured again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ofbnas.cli.output import Json, print_json, print_table
from ofbnas.cli.process import collect_as_usual

if TYPE_CHECKING:
    from torch import nn

    from ofbnas.config import DataConfig, StudyConfig

DATA_FORMS = (
    "--data STUDY.yaml, --data NAME such as digits, "
    "or --data FIELD=VALUE such as path=/data/imagenet"
)


def evaluate(
    table: Annotated[
        Path,
        typer.Argument(help="A study's folder, or a table with its weights.", metavar="TABLE"),
    ],
    arch: Annotated[
        str, typer.Option("--arch", help="Id of the architecture, or its beginning.", metavar="ID")
    ],
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            metavar="FIELD=VALUE|NAME|STUDY.yaml",
            help="What the table does not say about the images: a field such as path=DIR, the name "
            "of a data set, or a study that uses them; may be repeated.",
        ),
    ] = None,
    latency: Annotated[
        bool,
        typer.Option(
            "--latency",
            help="Also measure its latency and its parent's, with the study's settings.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure the accuracy of a table's network again.

    It is printed beside the recorded accuracy. A table says which test images were used, and --data
    says where they are; a study's folder says both. Without a classifier, it is the accuracy of
    nearest neighbours by features.

    Example: ofbnas evaluate runs/digits --arch 4f1c
    """
    import torch

    from ofbnas.config import LatencyConfig
    from ofbnas.config.study_file import load_study
    from ofbnas.errors import InputError
    from ofbnas.models.axes import input_size
    from ofbnas.study.networks import load_subnet
    from ofbnas.study.parent import data_settings, untrained_parent
    from ofbnas.table.layout import is_study
    from ofbnas.table.query import find, to_records
    from ofbnas.table.store import read_table
    from ofbnas.training.features import has_classifier
    from ofbnas.training.latency import latency as measure_latency

    collect_as_usual()
    found = find(read_table(table), arch)
    row = to_records(found.to_frame().T)[0]
    study = None
    if is_study(table):
        study = load_study(table / "study.yaml")
    if latency and study is None:
        raise InputError(
            f"--latency: {table} is not a study's folder, so there are no settings for timing; "
            "leave it out"
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_subnet(table, row["arch_id"])
    size = input_size(model)
    # A model without a classifier says nothing about the classes of images.
    classes = row["num_classes"]
    if has_classifier(model):
        classes = cast(int, model.num_classes)
    images = _images(table, row, study, data or (), classes)
    _check_images(images, row["arch_id"], classes, size)

    settings = data_settings(images, row["model"], {"input_size": size})
    num_images, quality = _measured(model.to(device), settings)
    result: dict[str, Any] = {
        "arch_id": row["arch_id"],
        "dataset": images.name,
        "images": num_images,
        **quality,
        **{f"recorded_{name}": row[name] for name in quality},
        "params": sum(parameter.numel() for parameter in model.parameters()),
    }
    if latency and study is not None:
        parent = untrained_parent(study).model.to(device)
        result |= measure_latency(model, parent, study.latency or LatencyConfig())
    if as_json:
        print_json(result)
    else:
        print_table(list(result), [result])


def _measured(model: nn.Module, settings: Mapping[str, Any]) -> tuple[int, dict[str, float]]:
    """The number of test images, and a model's quality on them by columns of the table.

    Args:
        model: In evaluation mode.
        settings: Arguments of `load_data`.
    """
    from ofbnas.training.data import load_data, load_test
    from ofbnas.training.evaluation import evaluate as measure
    from ofbnas.training.features import has_classifier, knn_top1

    device = next(model.parameters()).device
    if has_classifier(model):
        test = load_test(**settings).to(device)
        accuracy = measure(model, test)
        return len(test), {"top1": accuracy.top1, "top5": accuracy.top5}
    data = load_data(**settings).to(device)
    return len(data.test), {"knn_top1": knn_top1(model, data.val, data.test)}


def _images(
    table: Path,
    row: Mapping[str, Any],
    study: StudyConfig | None,
    given: Sequence[str],
    classes: int,
) -> DataConfig:
    """The images to test on: the study's or the table's, changed by the command line.

    Args:
        table: The table.
        row: The architecture's row.
        study: The table's study, if the table is a study's folder.
        given: The values of --data.
        classes: Number of the model's classes, used where nothing says how many the images have.

    Raises:
        InputError: Nothing says which images they are, or a field is not one of a data set's, or a
            data set that only the table names would be downloaded.
    """
    from ofbnas.config.images import completed_data, recorded_data
    from ofbnas.config.study_file import load_study
    from ofbnas.errors import InputError
    from ofbnas.training.data import may_download

    studies = []
    fields = {}
    for argument in given:
        if argument.endswith((".yaml", ".yml")):
            studies.append(Path(argument))
        else:
            field, value = _field(argument)
            fields[field] = value
    if len(studies) > 1:
        raise InputError(f"--data: names {len(studies)} studies, expected one")
    if studies:
        study = load_study(studies[0])
    recorded = recorded_data(row["data"], table) if study is None else study.data.model_dump()

    name = fields.get("name", recorded.get("name"))
    if name is None:
        raise InputError(
            f"{table}: does not say which images {row['arch_id']} was tested on; give {DATA_FORMS}"
        )
    # A table may come from a stranger, who must not choose what this machine downloads.
    if study is None and "name" not in fields and may_download(str(name)):
        raise InputError(
            f"{table}: says that the images are {name}, which may be downloaded; "
            f"--data {name} allows it"
        )
    where = "--data" if given else table
    return completed_data(recorded, fields, classes, where)


def _check_images(
    images: DataConfig, arch_id: str, classes: int, size: tuple[int, int, int]
) -> None:
    """Check that images fit a model.

    Args:
        images: The images.
        arch_id: The model, for messages.
        classes: Its number of classes.
        size: Channels, height and width of the images that it takes.

    Raises:
        InputError: They do not fit.
    """
    from ofbnas.errors import InputError
    from ofbnas.training.data import SIZES

    if images.num_classes != classes:
        raise InputError(
            f"{arch_id} has {classes} classes, but {images.name} has {images.num_classes}; "
            f"give {DATA_FORMS}"
        )
    # The images of other data sets are resized to the model's size.
    if SIZES.get(images.name, size) != size:
        raise InputError(
            f"{arch_id} takes images of {size} (channels, height, width), "
            f"but {images.name} has {SIZES[images.name]}; give {DATA_FORMS}"
        )


def _field(argument: str) -> tuple[str, Any]:
    """A field of a study's data and its value, from FIELD=VALUE or a data set's name."""
    from ofbnas.files.documents import parse_yaml

    if "=" not in argument:
        return "name", argument
    name, value = argument.split("=", 1)
    field = name.removeprefix("data.")
    # A path starts from the working folder, and may contain characters that YAML would interpret.
    if field == "path":
        return field, str(Path(value).expanduser().resolve())
    parsed, _ = parse_yaml(value, f"--data {name}")
    return field, parsed

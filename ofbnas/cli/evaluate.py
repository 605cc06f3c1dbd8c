"""ofbnas evaluate: a subnet's accuracy, measured again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ofbnas.cli.images import DataOptions, check_classes, check_size, chosen_images, known_of_row
from ofbnas.cli.output import Json, print_json, print_table
from ofbnas.cli.process import collect_as_usual

if TYPE_CHECKING:
    from torch import nn


def evaluate(
    table: Annotated[
        Path,
        typer.Argument(help="A study's folder, or a table with its weights.", metavar="TABLE"),
    ],
    arch: Annotated[
        str, typer.Option("--arch", help="Id of the architecture, or its beginning.", metavar="ID")
    ],
    data: DataOptions = None,
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
    from ofbnas.study.networks import find_network
    from ofbnas.study.parent import data_settings, untrained_parent
    from ofbnas.table.layout import is_study
    from ofbnas.training.features import has_classifier
    from ofbnas.training.latency import latency as measure_latency

    collect_as_usual()
    network = find_network(table, arch)
    row = network.row
    model = network.subnet.model
    study = None
    if is_study(table):
        study = load_study(table / "study.yaml")
    if latency and study is None:
        raise InputError(
            f"--latency: {table} is not a study's folder, so there are no settings for timing; "
            "leave it out"
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    size = input_size(model)
    # A model without a classifier says nothing about the classes of images.
    classes = row.num_classes or 1
    if has_classifier(model):
        classes = cast(int, model.num_classes)
    images = chosen_images(known_of_row(row, table, study), data or (), classes)
    check_classes(images, str(row.arch_id), classes)
    check_size(images, str(row.arch_id), size)

    settings = data_settings(images, row.model, {"input_size": size})
    num_images, quality = _measured(model.to(device), settings)
    result: dict[str, Any] = {
        "arch_id": row.arch_id,
        "dataset": images.name,
        "images": num_images,
        **quality,
        **{f"recorded_{name}": getattr(row, name) for name in quality},
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

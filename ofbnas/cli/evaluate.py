"""ofbnas evaluate: how good a network is, measured on images."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, cast

import typer

from ofbnas.cli.images import (
    DataOptions,
    Known,
    check_classes,
    check_size,
    chosen_images,
    known_of_row,
)  # fmt: skip
from ofbnas.cli.output import Json, print_json, print_table
from ofbnas.cli.process import collect_as_usual
from ofbnas.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from ofbnas.config import StudyConfig
    from ofbnas.table.columns import Row

KWARGS = "model.kwargs."


def evaluate(
    source: Annotated[
        str,
        typer.Argument(
            help="A study's folder or a table with its weights, such as that of ofbnas search; or "
            "the folder of a subnet; or timm's name of a model, local-dir:DIR or hf-hub:OWNER/NAME.",
            metavar="TABLE|SUBNET|MODEL",
        ),
    ],
    arch: Annotated[
        str | None,
        typer.Option(
            "--arch",
            help="Id of the architecture in the table, or its beginning; a table of one network "
            "needs none.",
            metavar="ID",
        ),
    ] = None,
    data: DataOptions = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="File of a model's weights; by default timm's.", metavar="FILE"),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="model.kwargs.NAME=VALUE",
            help="Give timm a further argument of a model; may be repeated.",
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
    """Measure a network: accuracy, loss and calibration error on test images.

    What a table has recorded is printed beside. A table says which test images were used, and
    --data says where they are; a study's folder says both. For a subnet or a model, --data says
    which they are. Without a classifier, it is the accuracy of nearest neighbours by features.

    Example: ofbnas evaluate runs/digits --arch 4f1c

    Example: ofbnas evaluate vit_small_patch16_224 --data /data/imagenet
    """
    import torch

    from ofbnas.config import LatencyConfig
    from ofbnas.config.model import label_of
    from ofbnas.study.images import data_settings
    from ofbnas.study.parent import untrained_parent
    from ofbnas.training.features import has_classifier
    from ofbnas.training.latency import latency as measure_latency

    collect_as_usual()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    subject = _subject(source, arch, data or (), checkpoint, settings or ())
    if latency and subject.study is None:
        raise InputError(
            f"--latency: {source} is not a study's folder, so there are no settings for timing; "
            "leave it out"
        )
    model = subject.model
    images = chosen_images(subject.known, data or (), subject.classes)
    if has_classifier(model):
        check_classes(images, subject.known.network, subject.classes)
    check_size(images, subject.known.network, subject.size)

    used = data_settings(images, subject.timm_name, {"input_size": subject.size})
    num_images, quality = _measured(model.to(device), used)
    result: dict[str, Any] = {
        subject.kind: subject.known.network,
        "dataset": label_of(images),
        "images": num_images,
        **quality,
        **_recorded(subject.row, quality),
        "params": sum(parameter.numel() for parameter in model.parameters()),
    }
    if latency and subject.study is not None:
        parent = untrained_parent(subject.study).model.to(device)
        result |= measure_latency(model, parent, subject.study.latency or LatencyConfig())
    if as_json:
        print_json(result)
    else:
        print_table(list(result), [result])


class _Subject(NamedTuple):
    """What is measured.

    Attributes:
        kind: "arch_id" or "model".
        model: In evaluation mode.
        timm_name: timm's name of it or, of a subnet, of its parent.
        size: Channels, height and width of the images that it takes.
        classes: Number of its classes; of one without a classifier, of its images as far as known.
        known: What is known of its images.
        row: Its row, if it is in a table.
        study: Its study, if the table is a study's folder.
    """

    kind: str
    model: nn.Module
    timm_name: str
    size: tuple[int, int, int]
    classes: int
    known: Known
    row: Row | None = None
    study: StudyConfig | None = None


def _subject(
    source: str,
    arch: str | None,
    data: Sequence[str],
    checkpoint: Path | None,
    settings: Sequence[str],
) -> _Subject:
    """What the command line names; the arguments are those of the command.

    Raises:
        InputError: There is no such thing, or an option does not apply to it.
    """
    import timm

    from ofbnas.files.weights import CONFIG
    from ofbnas.study.of_model import FOLDER, HUB
    from ofbnas.table.layout import named

    path = named(Path(source))
    if not path.exists():
        if arch is not None:
            raise InputError(f"{source}: no such table; --arch is the id of one of a table")
        if not timm.is_model(source) and not source.startswith((FOLDER, *HUB)):
            raise InputError(
                f"{source}: no such table or folder of a subnet, nor a model of timm, of which "
                "timm.list_models() has all"
            )
        return _model(source, data, checkpoint, settings)
    if checkpoint is not None or settings:
        raise InputError(
            f"{source}: has its own weights; --checkpoint and --set are for a model by timm's name"
        )
    if (path / CONFIG).is_file():
        return _subnet(path, arch)
    return _of_table(path, arch or _only_network(path))


def _only_network(table: Path) -> str:
    """The id of the architecture of a table that has one.

    Raises:
        InputError: It has none, or several.
    """
    from ofbnas.table.store import read_arrow

    rows = read_arrow(table, columns=["arch_id", "trial"])  # sorted by trial
    ids = rows["arch_id"].drop_null().unique().to_pylist()
    if len(ids) != 1:
        raise InputError(
            f"{table}: is a table of {len(ids)} networks; --arch says which of them is meant"
        )
    return str(ids[0])


def _of_table(table: Path, arch: str) -> _Subject:
    """A network of a table."""
    from ofbnas.config.study_file import load_study
    from ofbnas.models.axes import input_size
    from ofbnas.study.networks import find_network
    from ofbnas.table.layout import is_study
    from ofbnas.training.features import has_classifier

    network = find_network(table, arch)
    row = network.row
    model = network.subnet.model
    study = load_study(table / "study.yaml") if is_study(table) else None
    known = known_of_row(row, table, study)
    # A model without a classifier says nothing about the classes of images.
    classes = cast(int, model.num_classes) if has_classifier(model) else row.num_classes or 1
    return _Subject("arch_id", model, row.model, input_size(model), classes, known, row, study)


def _subnet(folder: Path, arch: str | None) -> _Subject:
    """The network of a subnet's folder."""
    from ofbnas.models.axes import input_size
    from ofbnas.models.subnet import load

    subnet = load(folder)
    model = subnet.model
    arch_id = subnet.architecture.id
    if arch is not None and not arch_id.startswith(arch):
        raise InputError(f"{folder}: holds architecture {arch_id}, expected {arch}")
    known = Known({}, arch_id, folder)
    classes = cast(int, model.num_classes)
    return _Subject("arch_id", model, subnet.architecture.model, input_size(model), classes, known)


def _model(
    name: str, data: Sequence[str], checkpoint: Path | None, settings: Sequence[str]
) -> _Subject:
    """A model by timm's name, with timm's weights or those of a file."""
    from ofbnas.config.fields import set_below
    from ofbnas.study.images import image_size
    from ofbnas.study.of_model import named_model
    from ofbnas.study.parent import model_with_weights

    named = named_model(name)
    tree: dict[str, Any] = {"model": {"kwargs": dict(named.kwargs)}}
    expected = "an argument of the model and its value, for example --set model.kwargs.img_size=384"
    set_below(tree, settings, KWARGS, expected)
    kwargs = tree["model"]["kwargs"]

    known = Known(named.of_images, name, name)
    classes = named.num_classes
    # timm's own weights have their classes; those of a file have, unless told, those of the images.
    if checkpoint is not None and "num_classes" not in kwargs and classes:
        classes = chosen_images(known, data, classes).num_classes
    kwargs = {"num_classes": classes, **kwargs}
    model = model_with_weights(named.name, kwargs, checkpoint or named.weights)
    return _Subject(
        "model",
        model,
        named.name,
        image_size(named.name, kwargs),
        cast(int, model.num_classes),
        known,
    )


def _measured(model: nn.Module, settings: Mapping[str, Any]) -> tuple[int, dict[str, float]]:
    """The number of test images, and a model's quality on them.

    Args:
        model: In evaluation mode.
        settings: Arguments of `load_data`.

    Raises:
        InputError: The model gives NaN or infinite values.
    """
    from ofbnas.training.data import load_data, load_test
    from ofbnas.training.evaluation import evaluate as measure
    from ofbnas.training.features import has_classifier, knn_top1

    device = next(model.parameters()).device
    if not has_classifier(model):
        data = load_data(**settings).to(device)
        return len(data.test), {"knn_top1": knn_top1(model, data.val, data.test)}
    test = load_test(**settings).to(device)
    accuracy = measure(model, test)
    if not math.isfinite(accuracy.loss):
        raise InputError("the model's outputs are NaN or infinite: its weights are damaged")
    return len(test), vars(accuracy)


def _recorded(row: Row | None, quality: Mapping[str, float]) -> dict[str, Any]:
    """What a row has recorded of what was measured, for those that are columns of a table."""
    from ofbnas.table.columns import QUALITIES

    if row is None:
        return {}
    return {f"recorded_{name}": getattr(row, name) for name in quality if name in QUALITIES}

"""ofbnas arch export: a network as a file that runs without ofbnas."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, cast

import typer

from ofbnas.cli.images import DataOptions
from ofbnas.cli.output import Json, print_json, print_table, say
from ofbnas.cli.process import collect_as_usual


class Format(StrEnum):
    """Formats of exported networks."""

    ONNX = "onnx"
    PT2 = "pt2"


class Integers(StrEnum):
    """How the ranges of activations are found: the names of `ofbnas.training.quantization.Int8`."""

    DYNAMIC = "dynamic"
    STATIC = "static"


def export(
    table: Annotated[
        Path,
        typer.Argument(help="A study's folder, or a table with its weights.", metavar="TABLE"),
    ],
    arch: Annotated[
        str, typer.Option("--arch", help="Id of the architecture, or its beginning.", metavar="ID")
    ],
    file_format: Annotated[
        Format,
        typer.Option(
            "--format",
            help="onnx, which needs the extra ofbnas[export], or pt2, a program of torch.export.",
        ),
    ] = Format.ONNX,
    int8: Annotated[
        Integers | None,
        typer.Option(
            help="Compute linear layers of an ONNX network with 8-bit integers. The ranges of "
            "activations are found while it runs, or once on validation images.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The file; by default ID.onnx or ID.pt2.", metavar="FILE"
        ),
    ] = None,
    data: DataOptions = None,
    as_json: Json = False,
) -> None:
    """Write a network to a file that runs without ofbnas.

    The file is for batches of any size, and says how images are prepared. It is written only if its
    outputs are those of the network. Both are then measured on the test images, and timed on
    this CPU. A table says which images they are, and --data says where.

    Example: ofbnas arch export runs/digits --arch 4f1c -o digits.onnx
    """
    from ofbnas.cli.images import check_classes, check_size, chosen_images, known_of_row
    from ofbnas.config.study_file import load_study
    from ofbnas.errors import InputError
    from ofbnas.models.axes import input_size
    from ofbnas.study.exporting import export_network, images_of
    from ofbnas.study.images import data_settings
    from ofbnas.study.networks import find_network
    from ofbnas.table.layout import is_study
    from ofbnas.training.features import has_classifier
    from ofbnas.training.onnx_runtime import check_onnx
    from ofbnas.training.quantization import Int8

    collect_as_usual()
    if file_format is Format.PT2 and int8 is not None:
        raise InputError("--int8: is ONNX Runtime's, for --format onnx; leave one of them out")
    if file_format is Format.ONNX:
        check_onnx()
    suffix = f".{file_format}"
    if output is not None and output.suffix != suffix:
        raise InputError(
            f"--output {output}: expected a name with {suffix} for --format {file_format}"
        )

    network = find_network(table, arch)
    model = network.subnet.model
    row = network.row
    arch_id = str(row.arch_id)
    size = input_size(model)
    study = load_study(table / "study.yaml") if is_study(table) else None
    # A model without a classifier says nothing about the classes of images.
    classes = cast(int, model.num_classes) if has_classifier(model) else row.num_classes or 1
    chosen = chosen_images(known_of_row(row, table, study), data or (), classes)
    check_classes(chosen, arch_id, classes)
    check_size(chosen, arch_id, size)

    settings = data_settings(chosen, row.model, {"input_size": size})
    images = images_of(settings, model, val=int8 is Integers.STATIC)
    file = output or Path(arch_id + ("-int8" if int8 else "") + suffix)
    method = None if int8 is None else Int8(int8)
    measured = [each.record() for each in export_network(network, images, file, method)]
    if as_json:
        print_json({"file": str(file), "images": len(images.test), "networks": measured})
        return
    print_table(list(measured[0]), measured)
    tested = f"{len(images.test):,} test images of {chosen.name}"
    say(f"{file}: measured on {tested}, timed one by one on one thread")

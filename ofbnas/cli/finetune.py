"""ofbnas finetune: a table's network, trained further."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ofbnas.cli.images import DataOptions
from ofbnas.cli.output import Json, say
from ofbnas.errors import InputError

if TYPE_CHECKING:
    import torch

    from ofbnas.config import DataConfig, StudyConfig
    from ofbnas.study.finetuned import Finetuning
    from ofbnas.study.networks import Network
    from ofbnas.table.columns import Row


def finetune(
    table: Annotated[
        Path,
        typer.Argument(help="A study's folder, or a table with its weights.", metavar="TABLE"),
    ],
    arch: Annotated[
        str, typer.Option("--arch", help="Id of the architecture, or its beginning.", metavar="ID")
    ],
    data: DataOptions = None,
    epochs: Annotated[
        int | None, typer.Option(help="Number of epochs; by default those of the study.")
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="Highest learning rate; by default that of the study.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="finetune.FIELD=VALUE",
            help="Change another field of the section finetune; may be repeated.",
        ),
    ] = None,
    distill: Annotated[
        bool | None,
        typer.Option(
            "--distill/--no-distill",
            help="Learn from the parent, too; by default as in the study, on the study's images.",
        ),
    ] = None,
    study: Annotated[
        Path | None,
        typer.Option(
            help="Study that the network is from, for its settings and its parent; by default the "
            "table's own.",
            metavar="STUDY.yaml",
        ),
    ] = None,
    parent: Annotated[
        Path | None,
        typer.Option(help="File of the parent's weights; by default the study's.", metavar="FILE"),
    ] = None,
    new_classifier: Annotated[
        bool,
        typer.Option(
            "--new-classifier",
            help="Begin with a new classifier even if the number of classes is the same.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Random seed.", min=0)] = 0,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the result; by default runs/TABLE-finetune.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a table's network further, on its images or on others.

    Where the images have another number of classes, the network gets a new classifier. The result
    is a row in a table of its own, which names the architecture and the weights that it came from.
    The same command resumes what was stopped.

    Example: ofbnas finetune runs/digits --arch 4f1c --epochs 20

    Example: ofbnas finetune runs/deit_s --arch 4f1c --data /data/flowers --data num_classes=102

    On 8 GPUs: torchrun --nproc-per-node 8 -m ofbnas finetune TABLE --arch ID
    """
    from ofbnas.cli.process import collect_as_usual
    from ofbnas.cli.single import print_rows
    from ofbnas.config.study_file import load_study
    from ofbnas.parallel import joined
    from ofbnas.study.networks import find_network
    from ofbnas.table.layout import home, is_study

    collect_as_usual()
    folder = output or Path("runs") / f"{home(table).resolve().name}-finetune"
    if is_study(folder):
        raise InputError(f"--output {folder}: is a study's folder, whose table is its own")
    config = None
    if study is not None:
        config = load_study(study)
    elif is_study(table):
        config = load_study(table / "study.yaml")
    given = list(settings or ())
    if epochs is not None:
        given.append(f"finetune.epochs={epochs}")
    if lr is not None:
        given.append(f"finetune.lr={lr}")

    finetuning = _finetuning(
        find_network(table, arch),
        table,
        config,
        data=data or (),
        settings=given,
        distill=distill,
        parent=parent,
        new_classifier=new_classifier,
        seed=seed,
        chosen=study is not None,
    )
    with joined() as device:
        print_rows([_trained(finetuning, config, folder, device)], folder, as_json=as_json)


def _finetuning(
    network: Network,
    table: Path,
    study: StudyConfig | None,
    *,
    data: Sequence[str],
    settings: Sequence[str],
    distill: bool | None,
    parent: Path | None,
    new_classifier: bool,
    seed: int,
    chosen: bool,
) -> Finetuning:
    """What the command line asks for; `chosen` says that it names the study.

    Raises:
        InputError: It cannot be done, or something is not allowed.
    """
    from ofbnas.cli.images import check_size, chosen_images, known_of_row
    from ofbnas.config.finetuning import distils, finetune_settings
    from ofbnas.models.axes import input_size
    from ofbnas.study.finetuned import Finetuning, needs_classifier
    from ofbnas.training.features import check_task, has_classifier
    from ofbnas.training.recipe import weights_optimizer

    row = network.row
    model = network.subnet.model
    known = known_of_row(row, table, study, chosen=chosen)
    images = chosen_images(known, data, row.num_classes or 1)
    check_size(images, str(row.arch_id), input_size(model))

    # The parent knows the classes of its own images only; its features are those of any image.
    replaced = new_classifier or needs_classifier(model, images)
    same_classes = images.name == known.fields.get("name") and not replaced
    taught = distils(study) or parent is not None
    wanted = distill
    if wanted is None:
        wanted = taught and (same_classes or not (has_classifier(model) or replaced))
    config = finetune_settings(study, row.swept, settings, distill=wanted)
    finetuning = Finetuning(network, images, config, seed, new_classifier, parent)
    if study is not None and finetuning.learns_from_parent():
        _check_may_be_called(study, images, chosen=chosen)
    if replaced and finetuning.learns_from_parent():
        raise InputError(
            f"{row.arch_id} gets a new classifier for the {images.num_classes} classes of "
            f"{images.name}, which its parent does not know: leave out the distillation, or name a "
            "teacher of these classes with --set finetune.distill.teacher.name=MODEL"
        )
    start = finetuning.start().model
    check_task(start, config.distill, "finetune")
    weights_optimizer(start, config)  # before images are read: timm may lack the optimizer
    return finetuning


def _check_may_be_called(study: StudyConfig, images: DataConfig, *, chosen: bool) -> None:
    """Check that no function that only a stranger's study names would make a parent's images.

    Raises:
        InputError: It would.
    """
    from ofbnas.config import OwnDataConfig

    makes = study.data.name
    if isinstance(study.data, OwnDataConfig) and not chosen and images.name != makes:
        raise InputError(
            f"{makes} makes the images of the parent, and would be called; --study FILE with the "
            "file of the study allows it, or leave out the distillation with --no-distill"
        )


def _trained(
    finetuning: Finetuning, study: StudyConfig | None, folder: Path, device: torch.device
) -> Row:
    """The row of the trained network."""
    from ofbnas.cli.progress import EpochLines
    from ofbnas.config.model import label_of
    from ofbnas.models.axes import input_size
    from ofbnas.parallel import shard
    from ofbnas.study.finetuned import parent_of, run_finetuning
    from ofbnas.study.images import data_of, data_settings
    from ofbnas.training.data import load_data

    first = shard().rank == 0
    callbacks = [EpochLines()] if first else []
    row = finetuning.network.row
    size = input_size(finetuning.network.subnet.model)
    data = load_data(**data_settings(finetuning.images, row.model, {"input_size": size})).to(device)
    parent = None
    if finetuning.learns_from_parent():
        of_study = data
        if study is not None and not _same(study.data, finetuning.images):
            of_study = data_of(study).to(device)
        parent = parent_of(finetuning, study, of_study, callbacks)
    if first:
        teacher = "with distillation" if finetuning.config.distill else "without distillation"
        head = ", with a new classifier" if finetuning.replaces_classifier() else ""
        say(f"finetune: {row.arch_id} on {label_of(finetuning.images)}, {teacher}{head}", err=True)
    return run_finetuning(finetuning, data, folder, parent, callbacks)


def _same(data: DataConfig, other: DataConfig) -> bool:
    """Whether two sections are of the same images, wherever the code that makes them lies."""
    from ofbnas.config import OwnDataConfig

    if isinstance(data, OwnDataConfig) and isinstance(other, OwnDataConfig):
        return data == other.model_copy(update={"path": data.path})
    return data == other

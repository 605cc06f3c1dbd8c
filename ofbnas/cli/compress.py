"""ofbnas compress: smaller networks in minutes, without training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ofbnas.cli.output import Json, Settings, say_at_once
from ofbnas.errors import InputError

if TYPE_CHECKING:
    from ofbnas.config import StudyConfig


def compress(
    source: Annotated[
        str,
        typer.Argument(
            help="timm's name of a model, local-dir:DIR or hf-hub:OWNER/NAME; or a study, for its "
            "model, data and search space.",
            metavar="MODEL|STUDY.yaml|NAME",
        ),
    ],
    budget: Annotated[
        str,
        typer.Option(
            help="Shares of the parent's multiply-accumulates, separated by commas.",
            metavar="SHARE,...",
        ),
    ] = "0.5",
    data: Annotated[
        str | None,
        typer.Option(
            help="Images of a model: a folder with train/ and val/, or a data set's name.",
            metavar="DIR|NAME",
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="File of a model's weights; by default timm's.", metavar="FILE"),
    ] = None,
    num_classes: Annotated[
        int | None, typer.Option(help="Classes of its images; by default those of the weights.")
    ] = None,
    settings: Settings = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the results; by default runs/NAME-compress.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compress the parent to one or several budgets in minutes, without training.

    Sizes are measured, chosen together, and cut in steps; after each step, the remaining layers are
    solved in closed form. It needs training images, but not their labels. Each budget adds a row to
    the folder's table; a lower budget goes on from the network of the next higher one. The same
    command resumes what was stopped.

    Example: ofbnas compress studies/digits.yaml --budget 0.5,0.35

    Example: ofbnas compress deit_small_patch16_224 --data /data/imagenet --budget 0.7,0.5

    To fine-tune the result, run `ofbnas search` with --set search.epochs=0 on a study that has
    a finetune section.
    """
    say_at_once(f"compressing {source}: starting")
    from ofbnas.cli.single import print_rows, started
    from ofbnas.study.chain import run_chain

    shares = _shares(budget)
    config = _study(source, data, checkpoint, num_classes, settings or ())
    configs = [
        config.with_values(
            {"search.epochs": 0, "search.budget.gmacs_share": share, "finetune": None}
        )
        for share in shares
    ]
    folder = output or Path("runs") / f"{config.name}-compress"
    with started(configs[0]) as start:
        rows = run_chain(configs, folder, *start)
        print_rows(rows, folder, as_json=as_json)


def _study(
    source: str,
    data: str | None,
    checkpoint: Path | None,
    num_classes: int | None,
    settings: Sequence[str],
) -> StudyConfig:
    """The study of a YAML file, or of a model.

    Raises:
        InputError: There is no such file or model, or something about it is not allowed.
    """
    from ofbnas.config.study_file import load_study, names_study

    if names_study(source):
        if (data, checkpoint, num_classes) != (None, None, None):
            raise InputError(
                f"{source}: a study says its data and weights itself; leave out --data, "
                "--checkpoint and --num-classes, or change its fields with --set"
            )
        return load_study(Path(source), settings)
    from ofbnas.study.of_model import study_of_model

    return study_of_model(
        source, data=data, checkpoint=checkpoint, num_classes=num_classes, settings=settings
    )


def _shares(text: str) -> list[float]:
    """The numbers of a list with commas.

    Raises:
        InputError: Something in it is not a share, or is there twice.

    >>> _shares("0.5, 0.25")
    [0.5, 0.25]
    """
    try:
        shares = [float(part) for part in text.split(",")]
    except ValueError:
        shares = []
    if not shares or not all(0 < share <= 1 for share in shares):
        raise InputError(
            f"--budget is {text[:80]!r}, expected shares above 0 and at most 1 such as 0.5,0.35"
        )
    if len(set(shares)) < len(shares):
        raise InputError(f"--budget is {text[:80]!r}, expected each share once")
    return shares

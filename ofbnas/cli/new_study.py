"""ofbnas study new: a study to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ofbnas.cli.output import Settings, say


def new(
    model: Annotated[
        str,
        typer.Argument(
            help="timm's name of a model, local-dir:DIR or hf-hub:OWNER/NAME.", metavar="MODEL"
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            help="Its images: a folder with train/ and val/, or a data set's name.",
            metavar="DIR|NAME",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write; by default MODEL.yaml."),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="File of the model's weights; by default timm's.", metavar="FILE"),
    ] = None,
    num_classes: Annotated[
        int | None,
        typer.Option(help="Classes of the images; by default those that the folder has."),
    ] = None,
    settings: Settings = None,
) -> None:
    """Write a study for a model and a folder of images, with a sentence about each field.

    A file that exists is never overwritten.

    Example: ofbnas study new deit_tiny_patch16_224 --data photos --output photos.yaml
    """
    from ofbnas.study.new import write_study
    from ofbnas.study.of_model import study_name

    file = output or Path(f"{study_name(model)}.yaml")
    notes = write_study(
        model,
        data,
        file,
        checkpoint=checkpoint,
        num_classes=num_classes,
        settings=settings or (),
    )
    say(str(file))
    for note in notes:
        say(note, err=True)
    say(f"look at it, then: ofbnas study plan {file}", err=True)

"""ofbnas compress: smaller networks in minutes, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ofbnas.cli.output import Json, Settings
from ofbnas.errors import InputError


def compress(
    study: Annotated[
        Path,
        typer.Argument(
            help="The study, a YAML file, for its model, data and search space.",
            metavar="STUDY.yaml",
        ),
    ],
    budget: Annotated[
        str,
        typer.Option(
            help="Shares of the parent's multiply-accumulates, separated by commas.",
            metavar="SHARE,...",
        ),
    ] = "0.5",
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

    To fine-tune the result, run `ofbnas search` with --set search.epochs=0 on a study that has
    a finetune section.
    """
    from ofbnas.cli.single import print_rows, started
    from ofbnas.config.study_file import load_study
    from ofbnas.study.chain import run_chain

    shares = _shares(budget)
    config = load_study(study, settings or ())
    configs = [
        config.with_values(
            {"search.epochs": 0, "search.budget.gmacs_share": share, "finetune": None}
        )
        for share in shares
    ]
    folder = output or Path("runs") / f"{config.name}-compress"
    with started(configs[0]) as start:
        rows = run_chain(configs, folder, *start)
        print_rows(rows, as_json=as_json)


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

"""ofbnas search: one search without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ofbnas.cli.output import Json, Settings


def search(
    study: Annotated[
        Path,
        typer.Argument(help="The study, a YAML file; its sweep is ignored.", metavar="STUDY.yaml"),
    ],
    settings: Settings = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the result; by default runs/NAME-search.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a single search and fine-tuning, without Ray.

    Swept fields have the study's own values. Each call adds a row to the folder's table.

    Example: ofbnas search studies/digits.yaml --set search.epochs=20

    On 8 GPUs: torchrun --nproc-per-node 8 -m ofbnas search STUDY.yaml
    """
    from ofbnas.cli.single import print_rows, run_searches
    from ofbnas.config.study_file import load_study

    config = load_study(study, settings or ())
    rows = run_searches([config], output or Path("runs") / f"{config.name}-search")
    if rows:
        print_rows(rows, as_json=as_json)

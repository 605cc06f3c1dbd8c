"""ofbnas search: one search without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ofbnas.cli.output import Json, Settings, Study, say_at_once


def search(
    study: Study,
    settings: Settings = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the result; by default runs/NAME-search.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a single search and fine-tuning, without Ray.

    The study's sweep is ignored: swept fields have the study's own values. Each call adds a row to the folder's table.

    Example: ofbnas search studies/digits.yaml --set search.epochs=20

    On 8 GPUs: torchrun --nproc-per-node 8 -m ofbnas search STUDY.yaml
    """
    say_at_once(f"searching as {study} says: starting")
    from ofbnas.cli.single import print_rows, started
    from ofbnas.config.study_file import load_study
    from ofbnas.study.trial import run_trial
    from ofbnas.table.store import next_trial

    config = load_study(study, settings or ())
    folder = output or Path("runs") / f"{config.name}-search"
    with started(config) as start:
        row = run_trial(config, {}, next_trial(folder), folder, *start)
        print_rows([row], folder, as_json=as_json)

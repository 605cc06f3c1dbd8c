"""ofbnas search: one search without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ofbnas.cli.output import Json, Settings, print_json, print_table


def search(
    study: Annotated[Path, typer.Argument(help="The study, a YAML file; its sweep is left out.", metavar="STUDY.yaml")],
    settings: Settings = None,
    output: Annotated[Path | None, typer.Option(help="Folder for the result; by default runs/NAME-search.")] = None,
    as_json: Json = False,
) -> None:
    """Run one search and fine-tuning with the study's own values, without Ray.

    Each call adds a row to the folder's table. Example: ofbnas search studies/digits.yaml --set search.epochs=20

    On several GPUs, or processes: torchrun --nproc-per-node 8 -m ofbnas search studies/deit_s.yaml
    """
    from ofbnas.parallel import joined, shard
    from ofbnas.parent import data_of, trained_parent
    from ofbnas.study_file import load_study
    from ofbnas.table import next_trial, to_records
    from ofbnas.trial import run_trial

    config = load_study(study, settings or ())
    folder = output or Path("runs") / f"{config.name}-search"
    epochs = config.pretrain.epochs if config.pretrain else 0
    with joined() as device:
        first = shard().rank == 0

        def say(phase: str, epoch: int, epochs: int) -> None:
            if first:
                typer.echo(f"{phase}: epoch {epoch} of {epochs}", err=True)

        data = data_of(config).to(device)
        parent = trained_parent(config, data, on_epoch=lambda epoch, _: say("parent", epoch, epochs))
        row = run_trial(config, {}, next_trial(folder), folder, data, parent.model.state_dict(), say)
    if not first:
        return
    import pandas as pd

    record = to_records(pd.DataFrame([row]))[0]
    if as_json:
        print_json(record)
    else:
        print_table(["arch_id", "gmacs", "params", "top1", "val_top1", "parent_top1", "seconds", "weights"], [record])

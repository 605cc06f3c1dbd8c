"""ofbnas evaluate: a subnet's accuracy, measured again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ofbnas.cli.output import Json, print_json, print_table


def evaluate(
    folder: Annotated[Path, typer.Argument(help="The study's folder.", metavar="DIR")],
    arch: Annotated[str, typer.Option("--arch", help="Id of the architecture, or its beginning.", metavar="ID")],
    latency: Annotated[
        bool, typer.Option("--latency", help="Time it and the parent too, as the study's latency says.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Load a subnet of a study and measure it on the study's test images.

    Example: ofbnas evaluate runs/digits --arch 4f1c
    """
    import torch

    from ofbnas.config import LatencyConfig
    from ofbnas.errors import InputError
    from ofbnas.latency import latency as measure_latency
    from ofbnas.parent import data_of, untrained_parent
    from ofbnas.study_file import load_study
    from ofbnas.subnet import load_subnet
    from ofbnas.table import find, is_study, read_table
    from ofbnas.training import evaluate as measure

    if not is_study(folder):
        raise InputError(f"{folder}: is no study's folder; expected one with study.yaml, which names the test images")
    row = find(read_table(folder), arch)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    study, model = load_study(folder / "study.yaml"), load_subnet(folder, row["arch_id"]).to(device)
    accuracy = measure(model, data_of(study).to(device).test)
    found: dict[str, Any] = {
        "arch_id": row["arch_id"],
        "top1": accuracy.top1,
        "top5": accuracy.top5,
        "recorded_top1": float(row["top1"]),
        "params": sum(parameter.numel() for parameter in model.parameters()),
    }
    if latency:
        found |= measure_latency(model, untrained_parent(study).model.to(device), study.latency or LatencyConfig())
    if as_json:
        print_json(found)
    else:
        print_table(list(found), [found])

"""ofbnas doctor: what this machine, or a cluster, has."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from ofbnas.cli.output import Address, Json, Settings, on_cluster, print_json, print_table


def doctor(
    study: Annotated[
        Path | None, typer.Argument(help="A study that the nodes are to run.", metavar="STUDY.yaml", show_default=False)
    ] = None,
    settings: Settings = None,
    output: Annotated[Path | None, typer.Option(help="The study's folder; by default runs/NAME.")] = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Show versions, processors, accelerators, folders and free disk, here or on the nodes of a cluster.

    With a study, say as well what would keep a cluster from running it. Exits with 1 if something would.

    Example: ofbnas doctor studies/deit_b.yaml --address auto
    """
    if address is not None:
        _cluster(study, settings or (), output, address, as_json)
        return
    if study is not None:
        raise typer.BadParameter("is looked at together with a cluster; give --address", param_hint="STUDY.yaml")
    import torch

    from ofbnas.parent import cache_folder
    from ofbnas.trial import versions

    cache = cache_folder()
    found: dict[str, Any] = {
        **versions(),
        "cpus": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "cache": str(cache),
        "cache_writable": _writable(cache),
        "disk_free_gb": round(shutil.disk_usage(Path.cwd()).free / 1e9, 1),
    }
    if as_json:
        print_json(found)
    else:
        shown = {
            name: ", ".join(value) or "none" if isinstance(value, list) else value for name, value in found.items()
        }
        print_table(["", "found"], [{"": name, "found": str(value)} for name, value in shown.items()])


def _cluster(study: Path | None, settings: Any, output: Path | None, address: str, as_json: bool) -> None:
    """The nodes of a cluster, and what is wrong with them."""
    from ofbnas.study_file import load_study

    config = None if study is None else load_study(study, settings)
    folder = None if config is None else output or Path("runs") / config.name
    on_cluster(address)
    from ofbnas.sweep.cluster import diagnose

    found = diagnose(config, folder, address)
    if as_json:
        print_json(found)
    else:
        columns = ["node", "cpus", "gpus", "disk_free_gb", "ofbnas", "torch", "timm"]
        print_table(columns, [{"node": node["host"], **node, **node["versions"]} for node in found["nodes"]])
        for problem in found["problems"]:
            typer.echo(f"problem: {problem}")
        if config is not None and not found["problems"]:
            typer.echo(f"{found['trials_at_a_time']} trials of {config.name} fit at a time")
    if found["problems"]:
        raise typer.Exit(1)


def _writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or in the nearest one above it that exists."""
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    return os.access(existing, os.W_OK)

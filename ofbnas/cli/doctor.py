"""ofbnas doctor: what this machine, or a cluster, has."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from ofbnas.cli.output import Address, Json, Settings, on_cluster, print_json, print_table, say
from ofbnas.cli.process import collect_as_usual


def doctor(
    study: Annotated[
        Path | None,
        typer.Argument(
            help="A study that the cluster should run.", metavar="STUDY.yaml", show_default=False
        ),
    ] = None,
    settings: Settings = None,
    output: Annotated[
        Path | None, typer.Option(help="The study's folder; by default runs/NAME.")
    ] = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Show the hardware and the versions of this machine or a cluster.

    With a study, also show what would prevent the cluster from running it, and exit with 1 if
    anything would.

    Example: ofbnas doctor studies/deit_b.yaml --address auto
    """
    if address is not None:
        _cluster(study, settings or (), output, address, as_json)
        return
    if study is not None:
        raise typer.BadParameter(
            "is only checked against a cluster; give --address", param_hint="STUDY.yaml"
        )
    _machine(as_json)


def _machine(as_json: bool) -> None:
    """Print what this machine has."""
    import torch

    from ofbnas.files.cache import cache_folder
    from ofbnas.study.provenance import versions

    cache = cache_folder()
    free = shutil.disk_usage(Path.cwd()).free
    gpus = []
    for index in range(torch.cuda.device_count()):
        gpus.append(torch.cuda.get_device_name(index))
    result: dict[str, Any] = {
        **versions(),
        "cpus": os.cpu_count(),
        "gpus": gpus,
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "cache": str(cache),
        "cache_writable": _writable(cache),
        "disk_free_gb": round(free / 1e9, 1),
    }
    if as_json:
        print_json(result)
        return
    texts = result | {"gpus": ", ".join(gpus) or "none"}
    rows = [{"": name, "found": str(value)} for name, value in texts.items()]
    print_table(["", "found"], rows)


def _cluster(
    study: Path | None, settings: Any, output: Path | None, address: str, as_json: bool
) -> None:
    """Print what a cluster's nodes have, and what is wrong with them."""
    from ofbnas.config.study_file import load_study

    config = None
    folder = None
    if study is not None:
        config = load_study(study, settings)
        folder = output or Path("runs") / config.name
    on_cluster(address)
    # Ray reads its settings at import, so this comes after on_cluster.
    from ofbnas.study.cluster.node_checks import diagnose

    collect_as_usual()
    result = diagnose(config, folder, address)
    problems = result["problems"]
    if as_json:
        print_json(result)
    else:
        _print_nodes(result["nodes"])
        for problem in problems:
            say(f"problem: {problem}")
        if config is not None and not problems:
            say(f"{result['trials_at_a_time']} trials of {config.name} fit at a time")
    if problems:
        raise typer.Exit(1)


def _print_nodes(nodes: list[dict[str, Any]]) -> None:
    """Print a row for each node of a cluster."""
    columns = ["node", "cpus", "gpus", "disk_free_gb", "ofbnas", "torch", "timm"]
    rows = [{"node": node["host"], **node, **node["versions"]} for node in nodes]
    print_table(columns, rows)


def _writable(folder: Path) -> bool:
    """Whether files can be created in a folder, or in its nearest parent that exists."""
    # The cache is created when it is first needed.
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return os.access(existing, os.W_OK)

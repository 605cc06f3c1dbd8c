"""ofbnas bench: how long networks take."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ofbnas.cli.output import Json, print_json, print_table, say

SHOWN = ["network", "device", "threads", "batch", "median ms", "p90 ms", "images/s", "of parent"]


class Device(StrEnum):
    """Where networks are timed."""

    CPU = "cpu"
    CUDA = "cuda"


class Dtype(StrEnum):
    """Data types of weights and images, by torch's names."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class Runtime(StrEnum):
    """What computes the networks."""

    TORCH = "torch"
    ONNX = "onnx"


def bench(
    table: Annotated[
        str,
        typer.Argument(
            help="A study's folder, a table, or a model by timm's name.", metavar="TABLE|MODEL"
        ),
    ],
    arch: Annotated[
        list[str] | None,
        typer.Option(
            "--arch",
            metavar="ID",
            help="Id of an architecture, or its beginning; may be repeated. By default those on "
            "the front of MACs and accuracy.",
        ),
    ] = None,
    device: Annotated[Device, typer.Option(help="Where to time.")] = Device.CPU,
    batch: Annotated[
        str, typer.Option(metavar="N,...", help="Images in a batch; several one after the other.")
    ] = "1",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of the CPU; by default torch's number.")
    ] = None,
    dtype: Annotated[Dtype, typer.Option(help="Of weights and images.")] = Dtype.FLOAT32,
    compiled: Annotated[bool, typer.Option("--compile", help="Use torch.compile.")] = False,
    runtime: Annotated[
        Runtime, typer.Option(help="What computes; onnx needs the extra ofbnas[export].")
    ] = Runtime.TORCH,
    seconds: Annotated[
        float, typer.Option(min=0, help="To time the slowest network for; the others do as many.")
    ] = 5.0,
    as_json: Json = False,
) -> None:
    """Time a table's networks and their parents, in turns.

    Time depends on sizes, not on weights, so these need not be here. The times of a table go into
    latency.parquet beside it, where `ofbnas front --x latency_ms` and the report find them.

    Example: ofbnas bench runs/digits --batch 1,32 --threads 1
    """
    from datetime import datetime

    from ofbnas.study.bench import bench as measure
    from ofbnas.study.bench import conditions_of, of_model, of_table
    from ofbnas.table.latency import add_latencies
    from ofbnas.training.onnx_runtime import check_onnx

    if runtime is Runtime.ONNX:
        check_onnx()
    conditions = conditions_of(
        device.value, _batch_sizes(batch), threads, dtype.value, compiled, runtime.value
    )
    source = Path(table)
    _check_given(table, source, arch)
    networks = of_table(source, arch or ()) if source.exists() else of_model(table)
    records = list(measure(networks, conditions, seconds, lambda text: say(text, err=True)))
    if source.exists():
        file = add_latencies(source, records)
        say(f"written to {file}", err=True)
    if as_json:
        for record in records:
            moment = record["measured_at"]
            assert isinstance(moment, datetime)
            record["measured_at"] = moment.isoformat()
        print_json(records)
        return

    rows = []
    parent_ms = 0.0
    for record in records:
        if record["arch_id"] is None:
            parent_ms = record["median_ms"]
        rows.append(
            {
                "network": record["arch_id"] or record["model"],
                "device": record["device"],
                "threads": record["threads"],
                "batch": record["batch_size"],
                "median ms": record["median_ms"],
                "p90 ms": record["p90_ms"],
                "images/s": record["images_per_second"],
                "of parent": record["median_ms"] / parent_ms,
            }
        )
    print_table(SHOWN, rows)


def _check_given(table: str, source: Path, arch: list[str] | None) -> None:
    """Check that what is to be timed is a table or a model.

    Raises:
        InputError: It is neither, or architectures are named of a model.
    """
    import timm

    from ofbnas.errors import InputError

    if source.exists():
        return
    if not timm.is_model(table):
        raise InputError(
            f"{table[:80]!r} is neither a table's folder or file nor a model of timm; "
            "`ofbnas space list` has the models"
        )
    if arch:
        raise InputError(f"--arch: {table} is a model; architectures are those of a table")


def _batch_sizes(text: str) -> list[int]:
    """The sizes of batches in a text such as "1,32".

    Raises:
        InputError: It is another text.
    """
    from ofbnas.errors import InputError

    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise InputError(f"--batch {text}: expected whole numbers from 1, such as 1,32")
    return sizes

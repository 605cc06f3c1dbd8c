"""How long networks of a table take, measured in turns with their parents."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from ofbnas.errors import InputError
from ofbnas.models.architecture import decode_sizes
from ofbnas.models.axes import axes as axes_of
from ofbnas.models.axes import check_sizes
from ofbnas.models.create import create_parent
from ofbnas.nas.plain import Network
from ofbnas.study.provenance import versions
from ofbnas.table.front import front
from ofbnas.table.latency import Conditions
from ofbnas.table.query import find
from ofbnas.table.store import read_table
from ofbnas.training.latency import cpu_threads, in_turns, prepared, processor, warm_up

if TYPE_CHECKING:
    import pandas as pd

LEAST_BATCHES = 10  # timed of each network, however slow it is
MOST_BATCHES = 1000
WARM_UP = 3  # batches of each network; the last of them says how many can be timed


@dataclass(frozen=True)
class Benched:
    """A network to time. Time depends on sizes alone, so its weights are fresh.

    Attributes:
        arch_id: Id of the architecture; None of a parent.
        model: timm's name of the parent.
        model_kwargs: JSON: the parent's arguments.
        network: The network.
    """

    arch_id: str | None
    model: str
    model_kwargs: str
    network: nn.Module

    @property
    def label(self) -> str:
        """The name that people know it by."""
        return self.arch_id or self.model


def of_model(name: str) -> list[Benched]:
    """A model of timm by its name, to be timed alone.

    Raises:
        InputError: timm has no such model.
    """
    return [Benched(None, name, "{}", create_parent(name, {}).eval())]


def of_table(source: Path, arch_ids: Sequence[str]) -> list[Benched]:
    """The parents of a table, each followed by its architectures.

    Args:
        source: The table.
        arch_ids: Ids of architectures, or their beginnings; by default those of the front.

    Raises:
        InputError: There is no such table or architecture, or it cannot be made.
    """
    table = read_table(source)
    rows = (
        [find(table, arch_id) for arch_id in arch_ids]
        if arch_ids
        else [row for _, row in front(table).iterrows()]
    )
    if not rows:
        raise InputError(f"{source}: has no complete trial, so there is nothing to time")
    parents: dict[tuple[str, str], list[pd.Series[Any]]] = {}
    for row in rows:
        parents.setdefault((row["model"], row["model_kwargs"]), []).append(row)

    benched = []
    for (model, kwargs), its_rows in parents.items():
        parent = create_parent(model, json.loads(kwargs)).eval()
        network = Network.whole(parent, axes_of(parent, space={}))
        kinds = {axis.name: axis.kind for axis in network.axes}
        full = {axis.name: axis.size for axis in network.axes}
        benched.append(Benched(None, model, kwargs, parent))
        seen = set()
        for row in its_rows:
            if row["arch_id"] in seen:  # several trials may have found one architecture
                continue
            seen.add(row["arch_id"])
            try:
                sizes = decode_sizes(row["architecture"], kinds, full)
                check_sizes(network.axes, sizes)
            except InputError as error:
                raise InputError(f"{source}: {row['arch_id']} {error}") from None
            benched.append(Benched(row["arch_id"], model, kwargs, network.at(sizes).model))
    return benched


def bench(
    benched: Sequence[Benched],
    conditions: Sequence[Conditions],
    seconds: float,
    notify: Callable[[str], None] = lambda _: None,
) -> Iterator[dict[str, Any]]:
    """Time networks under each of some conditions; all take turns.

    Args:
        benched: The networks, on the CPU.
        conditions: As `conditions_of` gives them.
        seconds: To time each network for, as far as it takes at least `LEAST_BATCHES`.
        notify: Told what is timed next.

    Yields:
        Rows of the latency file.
    """
    known_versions = json.dumps(versions())
    for one in conditions:
        notify(str(one))
        device = torch.device("cpu" if one.threads is not None else "cuda")
        with cpu_threads(one.threads):
            networks = [prepared(each.network.to(device), one) for each in benched]
            slowest = max(warm_up(network, WARM_UP)[-1] for network in networks)
            wanted = 1000 * seconds / slowest
            num_batches = int(np.clip(wanted, LEAST_BATCHES, MOST_BATCHES))
            times = in_turns(networks, num_batches)
        now = datetime.now(UTC)
        for each, its_times in zip(benched, times, strict=True):
            median = statistics.median(its_times)
            yield {
                "arch_id": each.arch_id,
                "model": each.model,
                "model_kwargs": each.model_kwargs,
                **asdict(one),
                "median_ms": median,
                "p90_ms": float(np.percentile(its_times, 90)),
                "images_per_second": 1000 * one.batch_size / median,
                "batches": num_batches,
                "versions": known_versions,
                "measured_at": now,
            }


def conditions_of(
    device: str,
    batch_sizes: Sequence[int],
    threads: int | None,
    dtype: str,
    compiled: bool,
    runtime: str,
) -> list[Conditions]:
    """The conditions that options of the command line ask for, one for each batch size.

    Args:
        device: "cpu" or "cuda".
        batch_sizes: Images in a batch.
        threads: Of a CPU; by default as many as torch uses.
        dtype: By torch's name.
        compiled: Whether to use torch.compile.
        runtime: "torch" or "onnx".

    Raises:
        InputError: They do not go together, or there is no such device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no GPU; give --device cpu")
    if device == "cuda" and threads is not None:
        raise InputError("--threads: are a CPU's; leave them out with --device cuda")
    if runtime == "onnx" and (device != "cpu" or dtype != "float32" or compiled):
        raise InputError(
            "--runtime onnx: is timed on a CPU in float32 and compiles by itself; give "
            "--device cpu --dtype float32 without --compile"
        )
    if device == "cpu" and threads is None:
        threads = torch.get_num_threads()
    name = processor(torch.device(device))
    return [
        Conditions(name, threads, batch_size, dtype, compiled, runtime)
        for batch_size in batch_sizes
    ]

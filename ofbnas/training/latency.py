"""Latency of a network: the time that a batch takes."""

from __future__ import annotations

import copy
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ofbnas.config import LatencyConfig
from ofbnas.models.axes import input_size
from ofbnas.table.latency import Conditions
from ofbnas.training.onnx_runtime import TimedNetwork, on_onnx_runtime

MAX_TURNS = 10  # of each network
SETTLE = 2  # uncounted batches at the start of a turn, when caches still hold the other network


def latency(
    subnet: nn.Module,
    parent: nn.Module,
    config: LatencyConfig,
) -> dict[str, Any]:
    """The latency columns of a row: the time from the call until the outputs are there.

    Subnet and parent take turns, so that other load on the machine slows both: their ratio is more
    reliable than either time.

    Args:
        subnet: On the device to measure; it is not changed, and timed in evaluation mode.
        parent: For images of the same size, on the same device.
        config: Configuration of the measurement.
    """
    device = next(subnet.parameters()).device
    conditions = Conditions(
        device=processor(device),
        threads=torch.get_num_threads() if device.type == "cpu" else None,
        batch_size=config.batch_size,
        dtype=config.precision,
        compiled=config.compile,
    )
    both = [prepared(subnet, conditions), prepared(parent, conditions)]
    for network in both:
        warm_up(network, config.warmup)
    subnet_times, parent_times = in_turns(both, config.batches)
    return {
        "latency_ms": float(np.median(subnet_times)),
        "latency_p90_ms": float(np.percentile(subnet_times, 90)),
        "parent_latency_ms": float(np.median(parent_times)),
        "latency_device": str(conditions),
    }


def prepared(model: nn.Module, conditions: Conditions) -> TimedNetwork:
    """A network that can be timed: a copy in evaluation mode, with a batch of random images.

    Args:
        model: On the device to measure; it is not changed.
        conditions: Its device's name and threads are not looked at.
    """
    device = next(model.parameters()).device
    dtype = getattr(torch, conditions.dtype)
    size = (conditions.batch_size, *input_size(model))
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(size, generator=generator).to(device, dtype)
    timed = copy.deepcopy(model).eval().to(dtype)
    if conditions.runtime == "onnx":
        return on_onnx_runtime(timed, images, conditions.threads)
    network: Any = torch.compile(timed) if conditions.compiled else timed

    @torch.no_grad()
    def run() -> None:
        network(images)
        if device.type == "cuda":  # a call returns before the GPU is done
            torch.cuda.synchronize(device)

    return run


def warm_up(network: TimedNetwork, num_batches: int) -> list[float]:
    """The times of batches that shall not count: they fill caches, and compile."""
    return _times(network, num_batches)


def in_turns(networks: Sequence[TimedNetwork], num_batches: int) -> list[list[float]]:
    """The times of some batches of each network, milliseconds; the networks take turns."""
    times: list[list[float]] = [[] for _ in networks]
    for turn in np.array_split(range(num_batches), min(MAX_TURNS, num_batches)):
        for network, so_far in zip(networks, times, strict=True):
            so_far += _times(network, SETTLE + len(turn))[SETTLE:]
    return times


def processor(device: torch.device) -> str:
    """The name of a GPU or of this machine's CPU."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    file = Path("/proc/cpuinfo")  # on Linux; `platform` knows the name on some systems only
    if file.is_file():
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@contextmanager
def cpu_threads(number: int | None) -> Iterator[None]:
    """Let torch compute on so many threads within the block; None leaves their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if number is None else number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _times(network: TimedNetwork, num_batches: int) -> list[float]:
    """The times that some batches take, milliseconds."""
    times = []
    for _ in range(num_batches):
        started = time.perf_counter()
        network()
        times.append(1000 * (time.perf_counter() - started))
    return times

"""Latency of a network: the time that a batch takes."""

from __future__ import annotations

import copy
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ofbnas.config import LatencyConfig
from ofbnas.models.axes import input_size

MAX_TURNS = 10  # of each network
SETTLE = 2  # uncounted batches at the start of a turn, when caches still hold the other network


@torch.no_grad()
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
    dtype = getattr(torch, config.precision)
    size = (config.batch_size, *input_size(subnet))
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(size, generator=generator).to(device, dtype)
    subnet_to_time = _prepared(subnet, config)
    parent_to_time = _prepared(parent, config)
    _times(subnet_to_time, images, config.warmup)  # caches, and compilation
    _times(parent_to_time, images, config.warmup)

    subnet_times: list[float] = []
    parent_times: list[float] = []
    num_turns = min(MAX_TURNS, config.batches)
    for turn in np.array_split(range(config.batches), num_turns):
        num_batches = SETTLE + len(turn)
        subnet_times += _times(subnet_to_time, images, num_batches)[SETTLE:]
        parent_times += _times(parent_to_time, images, num_batches)[SETTLE:]
    return {
        "latency_ms": float(np.median(subnet_times)),
        "latency_p90_ms": float(np.percentile(subnet_times, 90)),
        "parent_latency_ms": float(np.median(parent_times)),
        "latency_device": _conditions(device, config),
    }


def _prepared(model: nn.Module, config: LatencyConfig) -> Any:
    """A copy of a network as it is timed: in evaluation mode, with the precision configured."""
    dtype = getattr(torch, config.precision)
    timed = copy.deepcopy(model).eval().to(dtype)
    if config.compile:
        return torch.compile(timed)
    return timed


def _conditions(device: torch.device, config: LatencyConfig) -> str:
    """What a latency depends on besides the network, as text."""
    if device.type == "cuda":
        processor = torch.cuda.get_device_name(device)
    else:
        threads = torch.get_num_threads()
        plural = "" if threads == 1 else "s"
        processor = f"{_processor()}, {threads} thread{plural}"
    conditions = f"{processor}, batch {config.batch_size}, {config.precision}"
    if config.compile:
        conditions += ", compiled"
    return conditions


def _times(model: Any, images: Tensor, num_batches: int) -> list[float]:
    """The times that some batches take, milliseconds."""
    return [_milliseconds(model, images) for _ in range(num_batches)]


def _milliseconds(model: Any, images: Tensor) -> float:
    """The time that a batch takes."""
    started = time.perf_counter()
    model(images)
    if images.device.type == "cuda":  # a call returns before the GPU is done
        torch.cuda.synchronize(images.device)
    return 1000 * (time.perf_counter() - started)


def _processor() -> str:
    """The CPU's name; `platform` knows it on some systems only."""
    file = Path("/proc/cpuinfo")  # on Linux
    if file.is_file():
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()

"""How long a network takes for a batch."""

from __future__ import annotations

import copy
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ofbnas.axes import input_size
from ofbnas.config import LatencyConfig

MAX_TURNS = 10
SETTLE = 2  # batches at the start of a turn that do not count: caches hold the other network


@torch.no_grad()
def latency(subnet: nn.Module, parent: nn.Module, config: LatencyConfig) -> dict[str, Any]:
    """The columns of a row that say how long a batch takes, from the call until the outputs are there.

    The two take turns, so that what else the machine does slows both: their ratio says more than a time.

    Args:
        subnet: On the device that is meant; it is not changed, and timed in evaluation mode.
        parent: For images of the same size, on the same device.
        config: Every number of the measurement.
    """
    device, kind = next(subnet.parameters()).device, getattr(torch, config.precision)
    size = (config.batch_size, *input_size(subnet))
    images = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(device, kind)
    runs: list[Any] = [copy.deepcopy(model).eval().to(kind) for model in (subnet, parent)]
    if config.compile:
        runs = [torch.compile(model) for model in runs]
    for model in runs:
        for _ in range(config.warmup):
            _milliseconds(model, images)
    times: list[list[float]] = [[], []]
    for part in np.array_split(range(config.batches), min(MAX_TURNS, config.batches)):
        for model, found in zip(runs, times, strict=True):
            found += [_milliseconds(model, images) for _ in range(SETTLE + len(part))][SETTLE:]
    return {
        "latency_ms": float(np.median(times[0])),
        "latency_p90_ms": float(np.percentile(times[0], 90)),
        "parent_latency_ms": float(np.median(times[1])),
        "latency_device": _conditions(device, config),
    }


def _conditions(device: torch.device, config: LatencyConfig) -> str:
    """What a latency depends on besides the network."""
    if device.type == "cuda":
        place = torch.cuda.get_device_name(device)
    else:
        threads = torch.get_num_threads()
        place = f"{_processor()}, {threads} thread{'' if threads == 1 else 's'}"
    return f"{place}, batch {config.batch_size}, {config.precision}{', compiled' if config.compile else ''}"


def _milliseconds(model: Any, images: Tensor) -> float:
    started = time.perf_counter()
    model(images)
    if images.device.type == "cuda":
        torch.cuda.synchronize(images.device)
    return 1000 * (time.perf_counter() - started)


def _processor() -> str:
    """The CPU's name; Python knows it on some systems only."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()

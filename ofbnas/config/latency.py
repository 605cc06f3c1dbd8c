"""How the latency of a finished network is measured."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictInt

from ofbnas.config.section import Batches, BatchSize, Section, Threads


class LatencyConfig(Section):
    """Latency of a trial's subnet and of the parent, on the device that the trial ran on."""

    batch_size: BatchSize = 1
    """Number of images in a batch."""
    batches: Batches = 100
    """Number of timed batches for each network."""
    warmup: Annotated[StrictInt, Field(ge=0, le=1_000_000)] = 10
    """Number of untimed batches for each network before the timed ones."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Data type of the weights and the images."""
    compile: bool = False
    """Compile both networks with torch.compile."""


class TimedOnConfig(Section):
    """What the time of a budget depends on besides the network."""

    device: Literal["cpu", "cuda"] = "cpu"
    """Where the network is to run; the search may run elsewhere."""
    threads: Threads = 1
    """Threads of the CPU; a GPU does not use them."""
    batch_size: BatchSize = 1
    """Number of images in a batch."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Data type of the weights and the images."""
    runtime: Literal["torch"] = "torch"
    """What computes the network: torch without compilation."""

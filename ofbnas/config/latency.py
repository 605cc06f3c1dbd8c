"""How long a finished network takes is measured."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from ofbnas.config.section import Section


class LatencyConfig(Section):
    """The latency of what a trial found and of its parent, on the device the trial ran on."""

    batch_size: PositiveInt = 1
    """Images of a batch."""
    batches: PositiveInt = 100
    """Timed batches of each network."""
    warmup: Annotated[int, Field(ge=0)] = 10
    """Batches of each network before them."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of weights and images."""
    compile: bool = False
    """Compile both networks with torch.compile."""

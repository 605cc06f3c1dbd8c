"""Mean losses over the steps of an epoch or of a decision interval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ofbnas import parallel
from ofbnas.errors import NotFiniteError


class Mean:
    """Running means of losses; they stay on their device until they are taken."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def state(self) -> dict[str, Any]:
        """Sums and count, for a checkpoint."""
        return {"sums": self.sums, "count": self.count}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore `state`."""
        self.sums = dict(state["sums"])
        self.count = state["count"]

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Add one step's losses, [] each."""
        for name, value in losses.items():
            if name in self.sums:
                self.sums[name].add_(value.detach())
            else:
                self.sums[name] = value.detach().clone()  # the sum, which is added to in place
        self.count += 1

    def take(self, where: str) -> dict[str, float]:
        """The means since the last call, over all processes.

        Args:
            where: Part of the run, for the message.

        Raises:
            NotFiniteError: One is NaN or infinite.
        """
        parallel.average_(self.sums.values())
        means: dict[str, float] = {}
        for name, total in self.sums.items():
            means[name] = float(total) / self.count
        self.sums = {}
        self.count = 0
        for name, value in means.items():
            if not math.isfinite(value):
                raise NotFiniteError(f"{where}: {name} is {value}; a lower learning rate may help")
        return means

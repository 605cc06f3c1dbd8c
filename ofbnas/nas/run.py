"""The stage of a search as a run of the training loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ofbnas.config import SearchConfig
from ofbnas.models.passes import FeaturesAndOutputs
from ofbnas.models.supernet import Supernet
from ofbnas.nas.constraint import CostConstraint
from ofbnas.nas.network import ShrinkingNetwork
from ofbnas.nas.plain import Network
from ofbnas.nas.stage import Stage
from ofbnas.training.batches import Parts, Position
from ofbnas.training.loop import Losses, Run
from ofbnas.training.quality import of_epoch, on_validation
from ofbnas.training.recipe import Optimizers


class StageRun(Run):
    """A search, for `train`.

    Attributes:
        stage: What happens before and after each step.
    """

    config: SearchConfig
    phase = "search"

    def __init__(self, stage: Stage) -> None:
        """Set up the run of a stage that has just begun."""
        super().__init__(stage.data, stage.config, stage.seed)
        self.stage = stage
        self.settings = stage.settings
        # The patches hidden in each part of the present step.
        self._hidden: list[Tensor | None] = []

    @property
    def network(self) -> ShrinkingNetwork:
        """The network that is trained."""
        return self.stage.network

    @property
    def supernet(self) -> Supernet:
        """The network as it is now, under its masks."""
        return self.stage.supernet

    @property
    def constraint(self) -> CostConstraint:
        """The budget."""
        return self.stage.constraint

    @property
    def parent(self) -> Network:
        """The model that is searched."""
        return self.stage.parent

    @property
    def optimizers(self) -> Optimizers:  # type: ignore[override]  # a shrink replaces them
        """Those of the network as it is now."""
        return self.network.optimizers

    def begin(self) -> None:
        """Put the supernet into training mode."""
        self.supernet.train()

    def end(self) -> None:
        """Nothing: `ShrinkingNetwork.fused` makes the result."""

    def mixes(self) -> bool:
        """Mixup begins once all is decided: patches are hidden and rebuilt until then."""
        return not self.stage.is_open

    def accumulate(self, parts: Parts, step: int) -> Losses:
        """Accumulate the gradients of a batch and, while options are open, of what decides them."""
        self.stage.begin_step(step)
        self._hidden = self.stage.objective.hide([len(labels) for _, labels in parts], step)
        losses = super().accumulate(parts, step)
        if self.stage.is_open:
            losses |= self.stage.decide_losses(step)
        return losses

    def losses(
        self,
        images: Tensor,
        labels: Tensor,
        part: int,
    ) -> Losses:
        """The task's loss and, where patches are hidden, their reconstruction's."""
        hidden = self._hidden[part]
        passed: FeaturesAndOutputs = self.network.passes(images, hidden)
        objective = self.stage.objective
        task = objective.task(passed.outputs, labels)
        return objective.losses(passed, images, hidden, task)

    def total(self, losses: Losses) -> Tensor:
        """The loss to minimize, from the losses of one part, []."""
        return self.stage.objective.total(losses)

    def after_step(
        self,
        position: Position,
        losses: Losses,
    ) -> Sequence[dict[str, Any]]:
        """Decide and shrink after each decision interval."""
        return self.stage.end_step(position, losses)

    def validation(self) -> dict[str, float]:
        """How good the network is on the validation images, with its masks fused."""
        return of_epoch(self.network.fused(), self.data)

    def projected_metrics(self) -> dict[str, float]:
        """Projected final metrics, by the table's columns, as if the network were finished now."""
        return {
            **on_validation(self.network.fused(), self.parent.model, self.data),
            "gmacs": self.stage.projected("macs") / 1e9,
            "params": self.stage.projected("params"),
        }

    def state(self) -> dict[str, Any]:
        """Plain tensors and values, from which `load_state` restores the search."""
        return self.stage.state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore `state` in a search that has just been made, with the same arguments."""
        self.stage.load_state(state)

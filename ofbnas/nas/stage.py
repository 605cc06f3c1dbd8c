"""The single stage of a search: what happens before and after each step, whoever makes the step."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ofbnas import parallel
from ofbnas.config import SearchConfig
from ofbnas.models.axes import Axis, set_drop_path
from ofbnas.models.cost import Metric
from ofbnas.models.shrink import bare_copy
from ofbnas.models.supernet import Supernet
from ofbnas.models.tokens import MaskedImageModelling
from ofbnas.nas.constraint import CostConstraint
from ofbnas.nas.decisiveness import decisiveness
from ofbnas.nas.history import supernet_record
from ofbnas.nas.initialize import initialize_
from ofbnas.nas.network import ShrinkingNetwork
from ofbnas.nas.objective import Objective
from ofbnas.nas.plain import Network
from ofbnas.nas.refine import refined
from ofbnas.training.batches import Position, length_of
from ofbnas.training.criterion import TaskLoss, name_of, task_loss
from ofbnas.training.data import Data
from ofbnas.training.features import has_classifier
from ofbnas.training.loop import Losses
from ofbnas.training.mean import Mean
from ofbnas.training.teacher import Teacher


def settings_of(
    config: SearchConfig,
    seed: int,
    axes: Sequence[Axis],
    num_steps: int | None = None,
    loss: str | None = None,
) -> str:
    """A search's settings as text: a checkpoint of one with others is refused.

    Args:
        config: Configuration of the search.
        seed: Random seed.
        axes: What is searched.
        num_steps: Number of steps, if it does not follow from the configuration.
        loss: Name of a user's own loss.
    """
    searched = [(axis.name, axis.size, axis.options) for axis in axes]
    return repr((config, seed, searched, num_steps, loss))


class Stage:
    """A network that shrinks, its budget, its losses, and the times of decisions.

    Whoever trains it calls `begin_step`, computes the losses of each part of a batch and the
    gradients of their total (`Objective`), then calls `decide_losses` once, applies an optimizer
    step, and calls `end_step`.

    Attributes:
        network: The network that is trained.
        objective: The losses of images and labels.
        constraint: The budget.
        parent: The model that is searched.
        settings: All settings as text: a checkpoint of a search with others is refused.
        length: Length of the whole run.
        phase_length: Length of the part of it in which options are open.
        forced: Number of axes that were still open when all had to be decided.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        config: SearchConfig,
        axes: Sequence[Axis],
        seed: int,
        teacher: Teacher | None = None,
        loss: TaskLoss | None = None,
        num_steps: int | None = None,
    ) -> None:
        """Begin a search.

        Args:
            model: The trained parent.
            data: Training images, for the saliency that importance starts with, and for
                compensation.
            config: Configuration of the search.
            axes: What is searched.
            seed: Random seed; torch's random state is set.
            teacher: The teacher, if distillation is configured; by default the model itself.
            loss: The task's loss; by default that of the configuration.
            num_steps: Number of steps of the whole run; by default as many as `config.epochs`
                epochs have batches.

        Raises:
            InputError: The model cannot be searched, or the budget is out of reach.
        """
        self.data = data
        self.config = config
        self.seed = seed
        self.length = length_of(data, config)
        if num_steps is not None:
            self.length = self.length._replace(steps=num_steps)
        self.settings = settings_of(config, seed, axes, num_steps, name_of(loss))
        self.phase_length = config.open_length(self.length)
        self.interval = max(1.0, config.decision_interval.of(self.phase_length))

        torch.manual_seed(seed)
        pmim = None
        if config.pmim.weight and config.pmim.mask_ratio:
            pmim = MaskedImageModelling(model)
        supernet = Supernet(
            copy.deepcopy(model),
            axes,
            pmim=pmim,
            residual_mask=config.residual_mask,
        )
        if config.drop_path:  # otherwise the model keeps its own
            set_drop_path(supernet.model, config.drop_path)
        self.constraint = CostConstraint(model, axes, config)
        initialize_(supernet, data, config, seed, loss)
        self.network = ShrinkingNetwork(
            supernet,
            config,
            self.length,
            self.phase_length,
            data.device,
        )

        # It shares its parameters with the caller's model, whose mode stays as it is.
        self.parent = Network.whole(bare_copy(model).eval(), axes)
        if config.distill is not None and teacher is None:
            teacher = Teacher(copy.deepcopy(model), config.distill)
        criterion = None
        if has_classifier(model):
            criterion = loss or task_loss(config.loss, config.label_smoothing)
        self.objective = Objective(
            self.network, config, seed, self.phase_length, criterion, teacher
        )
        self.until_decision = self.interval
        self.interval_losses = Mean()
        self.forced = 0

    @property
    def supernet(self) -> Supernet:
        """The network as it is now, under its masks."""
        return self.network.supernet

    @property
    def is_open(self) -> bool:
        """Whether some axis is not decided yet."""
        return bool(self.network.open_axes())

    def begin_step(self, step: int) -> None:
        """Set the importance's weight in the masks for a step, counted from 0."""
        importance_weight = self.config.importance_weight.at(step, self.phase_length)
        for mask in self.network.open_axes().values():
            mask.blend.fill_(importance_weight)

    def decide_losses(self, step: int) -> Losses:
        """Add the gradients of what drives options to a decision, once per step.

        They are those of the budget, of the one-hot loss and of the importance norm. They reach the
        masks only, never the weights.

        Returns:
            The one-hot loss and the norm, where they have a weight, and the expected cost.
        """
        config = self.config
        pull = self.constraint.pull(self.supernet)
        loss = pull.loss
        values: Losses = {}
        norm_weight = config.importance.norm_weight
        if norm_weight is None:
            norm_weight = config.one_hot_weight
        if config.one_hot_weight or norm_weight:
            open_axes = self.network.open_axes()
            one_hot, norm = decisiveness(self.supernet.axes, open_axes, config)
            if config.one_hot_weight:
                # It rises from 0, so that options are compared before it makes them differ.
                warmup = max(1.0, config.one_hot_warmup.of(self.phase_length))
                rise = min(1.0, step / warmup)
                loss = loss + config.one_hot_weight * (rise * one_hot)
                values["one_hot"] = one_hot
            if norm_weight:
                loss = loss + norm_weight * norm
                values["importance_norm"] = norm
        self.network.optimizers.backward(loss)
        self.constraint.ascend(pull.gap)
        values["expected_cost"] = pull.expected
        return values

    def end_step(self, position: Position, losses: Losses) -> Sequence[dict[str, Any]]:
        """Update the average of the weights; decide and shrink after each decision interval.

        Returns:
            Records of decisions.
        """
        was_open = self.is_open
        self.network.update_average(position.step)
        self.interval_losses.add(losses)
        if not was_open:
            return []

        self.until_decision -= 1
        num_steps = position.step + 1
        phase_is_over = num_steps >= self.phase_length.steps
        records: list[dict[str, Any]] = []
        if self.until_decision < 1 or phase_is_over:
            # An interval need not be a whole number of steps: what is left over goes to the next.
            self.until_decision += self.interval
            means = self.interval_losses.take(f"search, step {num_steps}")
            records.append(self._record(position, means))
            self._agree()
            alive = self.constraint.survivors(self.supernet)
            self.network.keep_options(alive)
        if phase_is_over:
            self.decide_the_rest()
        self.restart_if_decided(num_steps)
        return records

    def decide_the_rest(self) -> None:
        """Decide all axes that are still open, together."""
        open_axes = self.network.open_axes()
        if not open_axes:
            return
        self.forced += len(open_axes)
        self._agree()
        alive = self.constraint.best_choice(self.supernet)
        self.network.keep_options(alive)

    def restart_if_decided(self, num_steps: int) -> None:
        """Once all axes are decided, go on from the parent's weights, if there is time left to train.

        Args:
            num_steps: Number of steps that are done.
        """
        restarts = self.config.decided_weights == "parent" and num_steps < self.length.steps
        if restarts and not self.is_open:
            start = (self.parent, self.data, self.config, self.seed)
            units = refined(self.network.units, self.constraint.budget, *start)
            self.network.restart(units, self.parent, self.data, self.seed)

    @torch.no_grad()
    def projected(self, metric: Metric) -> float:
        """The cost of the subnet, as if the network were finished now."""
        return self.constraint.projected(metric, self.supernet, decided=not self.is_open)

    def state(self) -> dict[str, Any]:
        """Plain tensors and values, from which `load_state` restores the stage."""
        return {
            "network": self.network.state(),
            "multiplier": self.constraint.multiplier,
            "until_decision": self.until_decision,
            "interval_losses": self.interval_losses.state(),
            "forced": self.forced,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore `state` in a stage that has just begun, with the same arguments."""
        self.network.load_state(state["network"])
        self.constraint.multiplier = state["multiplier"]
        self.until_decision = state["until_decision"]
        self.interval_losses.load_state(state["interval_losses"])
        self.forced = state["forced"]

    def _agree(self) -> None:
        """Give all processes the same masks, bit for bit, so that they decide alike."""
        for mask in self.supernet.masked().values():
            parallel.agree_([mask.importance, mask.logits])

    @torch.no_grad()
    def _record(
        self,
        position: Position,
        means: Mapping[str, float],
    ) -> dict[str, Any]:
        """A row of the history, taken before options are removed."""
        config = self.config
        mask_ratio = 0.0
        if self.supernet.pmim is not None:
            mask_ratio = config.pmim.hidden_share(position.step, self.phase_length)
        return {
            "kind": "decision",
            "phase": "search",
            "epoch": position.epoch + 1,
            "step": position.step + 1,
            **means,
            "importance_weight": config.importance_weight.at(position.step, self.phase_length),
            "mask_ratio": mask_ratio,
            "multiplier": float(self.constraint.multiplier),
            "axes": supernet_record(self.supernet),
        }

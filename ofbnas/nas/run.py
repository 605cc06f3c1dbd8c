"""A search step by step: the losses of a step, and the decision that ends an interval."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ofbnas import parallel
from ofbnas.config import SearchConfig
from ofbnas.models.axes import Axis, set_drop_path
from ofbnas.models.bimask import BiMask
from ofbnas.models.passes import FeaturesAndOutputs
from ofbnas.models.shrink import bare_copy
from ofbnas.models.supernet import Supernet
from ofbnas.models.tokens import MaskedImageModelling
from ofbnas.nas.constraint import CostConstraint
from ofbnas.nas.decisiveness import decisiveness
from ofbnas.nas.history import supernet_record
from ofbnas.nas.initialize import initialize_
from ofbnas.nas.network import ShrinkingNetwork
from ofbnas.nas.plain import Network
from ofbnas.nas.refine import refined
from ofbnas.training.batches import Parts, Position
from ofbnas.training.data import Data
from ofbnas.training.features import has_classifier
from ofbnas.training.loop import Losses, Run
from ofbnas.training.mean import Mean
from ofbnas.training.quality import of_epoch, on_validation
from ofbnas.training.recipe import Optimizers
from ofbnas.training.teacher import Teacher

PMIM_STREAM = 1  # of random numbers, so that hiding patches draws none that something else draws


class SearchRun(Run):
    """A search, for `train`: a network that shrinks, its budget, and the times of decisions.

    Attributes:
        network: The network that is trained.
        constraint: The budget.
        phase_length: Length of the part of the run in which options are open.
        forced: Number of axes that were still open when all had to be decided.
    """

    config: SearchConfig
    phase = "search"

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        config: SearchConfig,
        axes: list[Axis],
        seed: int,
        teacher: Teacher | None = None,
    ) -> None:
        """Set up a search; the arguments are those of `ofbnas.search`.

        Raises:
            InputError: The model cannot be searched, or the budget is out of reach.
        """
        super().__init__(data, config, seed)
        searched = [(axis.name, axis.size, axis.options) for axis in axes]
        self.settings = repr((config, seed, searched))
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
        initialize_(supernet, data, config, seed)
        self.network = ShrinkingNetwork(
            supernet,
            config,
            self.length,
            self.phase_length,
            self.device,
        )

        # It shares its parameters with the caller's model, whose mode stays as it is.
        self.parent = Network.whole(bare_copy(model).eval(), axes)
        self.teacher = teacher
        if config.distill is not None and teacher is None:
            self.teacher = Teacher(copy.deepcopy(model), config.distill)
        self.criterion = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
        self.until_decision = self.interval
        self.interval_losses = Mean()
        self.forced = 0

        # What `accumulate` leaves for `losses` and `after_step` of the same step.
        self._was_open = False
        self._hidden: list[Tensor | None] = []

    @property
    def optimizers(self) -> Optimizers:  # type: ignore[override]  # a shrink replaces them
        """Those of the network as it is now."""
        return self.network.optimizers

    @property
    def supernet(self) -> Supernet:
        """The network as it is now, under its masks."""
        return self.network.supernet

    def begin(self) -> None:
        """Put the supernet into training mode."""
        self.supernet.train()

    def end(self) -> None:
        """Nothing: `ShrinkingNetwork.fused` makes the result."""

    def mixes(self) -> bool:
        """Mixup begins once all is decided: patches are hidden and rebuilt until then."""
        return not self._was_open

    def accumulate(self, parts: Parts, step: int) -> Losses:
        """Accumulate the gradients of a batch and, while options are open, of what decides them."""
        open_axes = self.network.open_axes()
        self._was_open = bool(open_axes)
        if not open_axes:
            self._hidden = [None] * len(parts)
            return super().accumulate(parts, step)

        importance_weight = self.config.importance_weight.at(step, self.phase_length)
        for mask in open_axes.values():
            mask.blend.fill_(importance_weight)
        self._hidden = self._hide(parts, step)
        batch_losses = super().accumulate(parts, step)
        decision_losses = self._decide_losses(open_axes, step)
        return batch_losses | decision_losses

    def losses(
        self,
        images: Tensor,
        labels: Tensor,
        part: int,
    ) -> Losses:
        """The task's loss and, where patches are hidden, their reconstruction's."""
        hidden = self._hidden[part]
        passed: FeaturesAndOutputs = self.network.passes(images, hidden)
        values = {"task": self._task_loss(passed, images, labels)}
        pmim = self.supernet.pmim
        if pmim is not None and hidden is not None:
            values["reconstruction"] = pmim.loss(
                passed.features,
                images,
                hidden,
            )
        return values

    def total(self, losses: Losses) -> Tensor:
        """The task's loss plus the reconstruction's, which is scaled to be as large.

        OFB's total loss is L = L_task + weight * (L_task / L_reconstruction) * L_reconstruction,
        with no gradient through the quotient. `accumulate` adds budget and one-hot loss.
        """
        task = losses["task"]
        if "reconstruction" not in losses:
            return task
        reconstruction = losses["reconstruction"]
        # Clamped, so that a reconstruction without error does not divide by 0.
        scale = task.detach() / reconstruction.detach().clamp(min=1e-6)
        return task + self.config.pmim.weight * scale * reconstruction

    def after_step(
        self,
        position: Position,
        losses: Losses,
    ) -> Sequence[dict[str, Any]]:
        """Update the average of the weights; decide and shrink after each decision interval."""
        self.network.update_average(position.step)
        self.interval_losses.add(losses)
        if not self._was_open:
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
            self._decide_the_rest()
        restarts = self.config.decided_weights == "parent" and num_steps < self.length.steps
        if restarts and not self.network.open_axes():
            start = (self.parent, self.data, self.config, self.seed)
            units = refined(self.network.units, self.constraint.budget, *start)
            self.network.restart(units, self.parent, self.data, self.seed)
        return records

    def validation(self) -> dict[str, float]:
        """How good the network is on the validation images, with its masks fused."""
        return of_epoch(self.network.fused(), self.data)

    def projected_metrics(self) -> dict[str, float]:
        """Projected final metrics, by the table's columns, as if the network were finished now."""
        decided = not self.network.open_axes()
        projected = partial(self.constraint.projected, supernet=self.supernet, decided=decided)
        return {
            **on_validation(self.network.fused(), self.parent.model, self.data),
            "gmacs": projected("macs") / 1e9,
            "params": projected("params"),
        }

    def state(self) -> dict[str, Any]:
        """Plain tensors and values, from which `load_state` restores the search."""
        return {
            "network": self.network.state(),
            "multiplier": self.constraint.multiplier,
            "until_decision": self.until_decision,
            "interval_losses": self.interval_losses.state(),
            "forced": self.forced,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore `state` in a search that has just been made, with the same arguments."""
        self.network.load_state(state["network"])
        self.constraint.multiplier = state["multiplier"]
        self.until_decision = state["until_decision"]
        self.interval_losses.load_state(state["interval_losses"])
        self.forced = state["forced"]

    def _hide(self, parts: Parts, step: int) -> list[Tensor | None]:
        """Patches to hide in each part, [images, hidden]; None where none are.

        They are drawn for the whole batch, so an image has the same patches hidden whichever
        process it is in.
        """
        pmim = self.supernet.pmim
        if pmim is None:
            return [None] * len(parts)
        shard = parallel.shard()
        images_in_part = [len(labels) for _, labels in parts]
        images_in_batch = sum(images_in_part) * shard.world
        share = self.config.pmim.hidden_share(step, self.phase_length)
        sequence = np.random.SeedSequence((self.seed, step, PMIM_STREAM))
        seed = int(sequence.generate_state(1)[0])
        hidden = pmim.hide(images_in_batch, share, seed)
        if hidden.shape[1] == 0:
            return [None] * len(parts)

        mine = hidden[shard.of(images_in_batch)]
        return list(mine.split(images_in_part))

    def _task_loss(self, passed: FeaturesAndOutputs, images: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy, if there is a classifier, and what is learned from a teacher, []."""
        if self.teacher is not None and not has_classifier(self.parent.model):
            taught = self.teacher(images)
            return self.teacher.feature_loss(passed, taught, self.network.channels)
        task: Tensor = self.criterion(passed.outputs, labels)
        if self.teacher is None:
            return task
        return self.teacher.loss(task, passed, self.teacher(images), self.network.channels)

    def _decide_losses(
        self,
        open_axes: Mapping[str, BiMask],
        step: int,
    ) -> Losses:
        """Add the gradients of what drives options to a decision, once per step.

        They are those of the budget, of the one-hot loss and of the importance norm.

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
        self.optimizers.backward(loss)
        self.constraint.ascend(pull.gap)
        values["expected_cost"] = pull.expected
        return values

    def _decide_the_rest(self) -> None:
        """Decide all axes that are still open, together."""
        open_axes = self.network.open_axes()
        if not open_axes:
            return
        self.forced += len(open_axes)
        self._agree()
        alive = self.constraint.best_choice(self.supernet)
        self.network.keep_options(alive)

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
            "phase": self.phase,
            "epoch": position.epoch + 1,
            "step": position.step + 1,
            **means,
            "importance_weight": config.importance_weight.at(position.step, self.phase_length),
            "mask_ratio": mask_ratio,
            "multiplier": float(self.constraint.multiplier),
            "axes": supernet_record(self.supernet),
        }

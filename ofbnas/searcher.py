"""A search as it goes: what a step learns from, and what is decided on a beat."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ofbnas import losses, parallel, saliency
from ofbnas.axes import Axis, set_drop_path
from ofbnas.bimask import BiMask
from ofbnas.budget import window_below
from ofbnas.config import Length, SearchConfig
from ofbnas.cost import Metric, cost_of, sizes_of
from ofbnas.data import Data, Epoch
from ofbnas.decide import best_choice, sizes_alive, survivors
from ofbnas.learner import Learner
from ofbnas.recipe import autocast, mixer
from ofbnas.supernet import Supernet
from ofbnas.teacher import Teacher
from ofbnas.tokens import MaskedImageModelling
from ofbnas.training import Mean, OnEpoch, Place, batches, evaluate, length_of, save_checkpoint

Parts = Sequence[tuple[Tensor, Tensor]]
OnRung = Callable[[int, dict[str, float]], None]


class Searcher:
    """A search: a learner, its losses, the budget, and when to decide.

    Attributes:
        learner: What is trained, and shrinks.
        phase: The part of the run in which something may be open.
        costs: The parent's costs by metric.
        window: What the subnet may cost.
        note: Why the window is wider than asked for, or None.
        forced: Axes that were open when all had to be decided.
        history: One record per beat.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        config: SearchConfig,
        axes: list[Axis],
        seed: int,
        teacher: Teacher | None = None,
    ) -> None:
        self.data, self.config, self.seed, self.device = data, config, seed, data.device
        self.settings = repr((config, seed, [(axis.name, axis.size, axis.options) for axis in axes]))
        length = length_of(data, config)
        deciding = min(max(1.0, config.decide_by.of(length)), length.steps)
        self.phase = Length(deciding, length.epochs * deciding / length.steps)
        self.interval = max(1.0, config.beat.of(self.phase))

        metrics: set[Metric] = {"macs", "params", config.budget.metric()}
        self.costs = {metric: cost_of(model, axes, metric) for metric in metrics}
        self.cost = self.costs[config.budget.metric()]
        self.full = self.cost.of(sizes_of(axes))
        self.expected = self.cost.expected(self.device)
        self.multiplier = torch.zeros((), device=self.device, dtype=torch.float64)

        torch.manual_seed(seed)
        pmim = MaskedImageModelling(model) if config.pmim.weight and config.pmim.mask_ratio else None
        supernet = Supernet(copy.deepcopy(model), axes, pmim=pmim, residual_mask=config.residual_mask)
        if config.drop_path:  # otherwise the model keeps its own
            set_drop_path(supernet.model, config.drop_path)
        limit = config.budget.limit(self.full)
        self.window = window_below(self.cost, sizes_alive(supernet), limit, config.budget.tolerance)
        self.note = None
        if self.window.floor < limit * (1 - config.budget.tolerance):
            self.note = f"no architecture of this space costs between {self.window.floor:,} and the budget {limit:,}"
        self._start(supernet)
        self.learner = Learner(supernet, config, length, self.phase, self.device)

        self.teacher = teacher
        if config.distill is not None and teacher is None:
            self.teacher = Teacher(copy.deepcopy(model), config.distill)
        self.criterion = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
        self.mix = mixer(config.augment, data.num_classes)
        self.epoch, self.until_beat, self.forced = 0, self.interval, 0
        self.since_beat = Mean()
        self.history: list[dict[str, Any]] = []

    def train(
        self,
        on_epoch: OnEpoch | None,
        checkpoint: Path | None,
        rungs: Collection[int] = (),
        on_rung: OnRung | None = None,
    ) -> None:
        """The epochs that are left, deciding and shrinking on beats.

        A rung comes before its epoch's checkpoint, so that one which an interruption has swallowed is reached again.
        """
        since_epoch = Mean()
        self.learner.supernet.train()
        for place, parts in batches(self.data, self.config, self.seed, self.epoch):
            searching = bool(self.learner.open_axes())
            values = self.step(parts, place.step)
            self.since_beat.add(values)
            since_epoch.add(values)
            if searching:
                self._beat(place)
            if place.last_of_epoch:
                self.epoch = place.epoch + 1
                means = since_epoch.take(f"search, epoch {self.epoch}")
                if on_rung and self.epoch in rungs:
                    on_rung(self.epoch, self.outlook())
                if checkpoint is not None:
                    save_checkpoint(checkpoint, self.state(), self.settings)
                if on_epoch:
                    on_epoch(self.epoch, means)

    def outlook(self) -> dict[str, float]:
        """What a search that still goes on says of its end, by the table's columns.

        Accuracy is that of the network as it is, masks fused and averaged as at the end. Until all is decided, the
        cost that the budget is in is the middle of its window, which is promised, and another one the expected cost.
        """
        return {
            "val_top1": evaluate(self.learner.result(), self.data.val).top1,
            "gmacs": self._cost_ahead("macs") / 1e9,
            "params": self._cost_ahead("params"),
        }

    @torch.no_grad()
    def _cost_ahead(self, metric: Metric) -> float:
        supernet = self.learner.supernet
        if not self.learner.open_axes():
            return self.costs[metric].of(sizes_of(supernet.axes))
        if metric == self.config.budget.metric():
            return (self.window.floor + self.window.limit) / 2
        return float(self.costs[metric].expected(self.device)(*supernet.expected_sizes()))

    def step(self, parts: Parts, step: int) -> dict[str, Tensor]:
        """One update; returns the parts of its loss, on the device.

        Args:
            parts: Images and labels, in as many parts as are accumulated.
            step: From 0.
        """
        self.learner.descent.begin(step)
        open_axes = self.learner.open_axes()
        if open_axes:
            values = self._search_step(open_axes, parts, step)
        else:
            values = {}
            for images, labels in parts:
                images, labels = (images, labels) if self.mix is None else self.mix(images, labels)
                with autocast(self.config, self.device):
                    task = self._task(self.learner.passes(images), images, labels)
                self.learner.descent.backward(task / len(parts))
                values["task"] = values.get("task", 0) + task.detach() / len(parts)
        self.learner.update(step)
        return values

    def _search_step(self, open_axes: Mapping[str, BiMask], parts: Parts, step: int) -> dict[str, Tensor]:
        """The gradients of a step while something is open."""
        config, pmim = self.config, self.learner.supernet.pmim
        blend = config.importance_weight.at(step, self.phase)
        for mask in open_axes.values():
            mask.blend.fill_(blend)
        values: dict[str, Tensor] = {}
        for (images, labels), hidden in zip(parts, self._hidden(parts, step), strict=True):
            with autocast(config, self.device):
                both = self.learner.passes(images, hidden)
                task = self._task(both, images, labels)
                found = {"task": task}
                if pmim is not None and hidden is not None:
                    rebuilt = pmim.loss(both[0], images, hidden)
                    found["reconstruction"] = rebuilt
            loss = task
            if "reconstruction" in found:
                scale = task.detach() / rebuilt.detach().clamp(min=1e-6)
                loss = task + config.pmim.weight * scale * rebuilt
            self.learner.descent.backward(loss / len(parts))
            for name, value in found.items():
                values[name] = values.get(name, 0) + value.detach() / len(parts)

        cost = self.expected(*self.learner.supernet.expected_sizes()) / self.full
        gap = cost - (self.window.floor + self.window.limit) / (2 * self.full)
        loss = losses.budget_pull(gap, config.budget_weight, self.multiplier).float()
        if config.one_hot_weight:
            one_hot, norm = self._decisiveness(open_axes)
            rise = min(1.0, step / max(1.0, config.one_hot_warmup.of(self.phase)))
            loss = loss + config.one_hot_weight * (rise * one_hot + norm)
            values |= {"one_hot": one_hot, "importance_norm": norm}
        self.learner.descent.backward(loss)
        self.multiplier += config.budget_ascent * gap.detach()
        return values | {"expected_cost": cost}

    def _hidden(self, parts: Parts, step: int) -> list[Tensor | None]:
        """Patches to hide in each part: the same for an image of a batch, however many processes share the batch."""
        pmim, shard = self.learner.supernet.pmim, parallel.shard()
        counts = [len(labels) for _, labels in parts]
        if pmim is None:
            return [None] * len(parts)
        share = self.config.pmim.hidden_share(step, self.phase)
        number = int(np.random.SeedSequence((self.seed, step, 1)).generate_state(1)[0])
        hidden = pmim.hide(sum(counts) * shard.world, share, number)
        if not hidden.shape[1]:
            return [None] * len(parts)
        return list(hidden[shard.of(len(hidden))].split(counts))

    def _task(self, learned: tuple[Tensor, Tensor], images: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy, and what the teacher teaches, []."""
        task: Tensor = self.criterion(learned[1], labels)
        if self.teacher is None:
            return task
        return self.teacher.loss(task, learned, self.teacher(images), self.learner.channels)

    def _beat(self, place: Place) -> None:
        """After a step of the search: let options die if it is time."""
        self.until_beat -= 1
        over = place.step + 1 >= self.phase.steps
        if self.until_beat < 1 or over:
            self.until_beat += self.interval
            means = self.since_beat.take(f"search, step {place.step + 1}")
            self.history.append(self._record(place.epoch + 1, place.step, means))
            self._agree()
            self.learner.decide(survivors(self.learner.supernet, self.cost, self.window, self.config.threshold))
        if over:
            self._force()

    def _force(self) -> None:
        """Decide what is still open, all together."""
        if open_axes := self.learner.open_axes():
            self.forced += len(open_axes)
            self._agree()
            self.learner.decide(best_choice(self.learner.supernet, self.cost, self.window))

    def _agree(self) -> None:
        """Let all processes decide by the very same numbers."""
        for mask in self.learner.supernet.masked().values():
            parallel.agree_([mask.importance, mask.logits])

    def state(self) -> dict[str, Any]:
        """All that an interrupted search needs to go on: plain tensors and values."""
        return {
            "learner": self.learner.state(),
            "epoch": self.epoch,
            "multiplier": self.multiplier,
            "until_beat": self.until_beat,
            "since_beat": self.since_beat.state(),
            "forced": self.forced,
            "history": self.history,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`; this search has just begun, with the same model, data and configuration."""
        self.learner.load_state(state["learner"])
        self.epoch, self.multiplier, self.history = state["epoch"], state["multiplier"], list(state["history"])
        self.until_beat, self.forced = state["until_beat"], state["forced"]
        self.since_beat.load_state(state["since_beat"])

    def _start(self, supernet: Supernet) -> None:
        """Importance and options as a search begins with them."""
        config, model, axes = self.config.importance, supernet.model, supernet.axes
        scores = {}
        if config.start == "taylor":
            epoch = self.data.shuffled(self.config.batch_size, Epoch(self.seed, shard=parallel.shard()))
            scores = saliency.taylor(model, axes, islice(epoch, config.start_batches))
        elif config.start == "magnitude":
            scores = saliency.magnitude(model, axes)
        for name, mask in supernet.masked().items():
            if name in scores:
                start = saliency.normal_scores(scores[name])
            else:
                start = nn.init.trunc_normal_(torch.empty_like(mask.importance), 0, 1, -2, 2)
            logits = self.config.alpha.spread * torch.rand_like(mask.logits)
            mask.start_(config.mean + config.std * start, logits)
        parallel.agree_(supernet.trained().values())

    def _decisiveness(self, open_axes: Mapping[str, BiMask]) -> tuple[Tensor, Tensor]:
        """The adaptive one-hot loss and the weighted importance norm, summed over open axes."""
        importance = self.config.importance
        weights = {"attn": importance.norm_attn, "mlp": importance.norm_mlp, "embed": importance.norm_embed}
        one_hot = norm = torch.zeros((), device=self.device)
        for axis in self.learner.supernet.axes:
            if (mask := open_axes.get(axis.name)) is None:
                continue
            norm = norm + weights[axis.kind] * losses.importance_norm(mask.gate())
            if not mask.decided:
                margin = self.config.one_hot_margin
                one_hot = one_hot + losses.adaptive_one_hot(mask.probabilities(), mask.num_alive, margin)
        return one_hot, norm

    @torch.no_grad()
    def _record(self, epoch: int, step: int, means: Mapping[str, float]) -> dict[str, Any]:
        """What the history keeps of a beat."""
        supernet = self.learner.supernet
        masks = supernet.masked()
        widths = supernet.expected_sizes()[0].tolist()
        return {
            "epoch": epoch,
            "step": step + 1,
            **means,
            "importance_weight": self.config.importance_weight.at(step, self.phase),
            "mask_ratio": 0.0 if supernet.pmim is None else self.config.pmim.hidden_share(step, self.phase),
            "multiplier": float(self.multiplier),
            "axes": [
                {
                    "axis": axis.name,
                    "groups": axis.size[0],
                    "channels": axis.size[1],
                    "options": masks[axis.name].num_alive if axis.name in masks else 1,
                    "expected": width,
                }
                for axis, width in zip(supernet.axes, widths, strict=True)
            ],
        }

"""The state of a search, and how a step, a beat and a shrink change it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ofbnas import losses, saliency
from ofbnas.axes import Axis, final_embedding
from ofbnas.bimask import BiMask
from ofbnas.budget import window_below
from ofbnas.config import SearchConfig
from ofbnas.cost import cost_of, sizes_of
from ofbnas.data import Data
from ofbnas.decide import Alive, sizes_alive, survivors
from ofbnas.shrink import take
from ofbnas.supernet import Supernet, passes
from ofbnas.tokens import MaskedImageModelling
from ofbnas.training import (
    Mean,
    OnEpoch,
    adamw,
    batches,
    cosine,
    descend,
    exempt,
    load_optimizer_state,
    optimizer_state,
    save_checkpoint,
)

# How Adam's moments scale with a parameter, as powers of it.
MOMENTS = {"exp_avg": -1, "exp_avg_sq": -2}


class Searcher:
    """The state of a search: the supernet, its optimizers, and the budget."""

    def __init__(self, model: nn.Module, data: Data, config: SearchConfig, axes: list[Axis], seed: int) -> None:
        self.data, self.config = data, config
        self.device = data.train.images.device
        self.steps = config.epochs * data.num_batches(config.batch_size)
        pmim = MaskedImageModelling(model) if config.pmim.weight and config.pmim.mask_ratio else None
        self.settings = repr((config, seed, [(axis.name, axis.size, axis.options) for axis in axes]))
        self.teacher = copy.deepcopy(model).eval() if config.distill is not None else None
        self.supernet = Supernet(copy.deepcopy(model), axes, pmim=pmim, residual_mask=config.residual_mask)
        self._start(seed)
        self.final = final_embedding(axes).name
        self.units = {axis.name: torch.arange(axis.units).view(axis.size) for axis in axes}

        self.costs = {metric: cost_of(model, axes, metric) for metric in ("macs", "params")}
        self.cost = self.costs[config.budget.metric()]
        self.full = self.cost.of(sizes_of(axes))
        limit = config.budget.limit(self.full)
        self.window = window_below(self.cost, sizes_alive(self.supernet), limit, config.budget.tolerance)
        self.note = None
        if self.window.floor < limit * (1 - config.budget.tolerance):
            self.note = f"no architecture of this space costs between {self.window.floor:,} and the budget {limit:,}"
        self.expected = self.cost.expected(self.device)
        self.multiplier = torch.zeros((), device=self.device, dtype=torch.float64)
        self.interval = self.steps / (config.epochs * config.beats_per_epoch)
        self.until_beat = self.interval
        self.since_beat = Mean()
        self.history: list[dict[str, Any]] = []
        self.epoch = 0
        self._new_optimizers(step=0)

    def train(self, seed: int, on_epoch: OnEpoch | None, checkpoint: Path | None) -> None:
        """The epochs that are left, deciding and shrinking on beats."""
        config, since_epoch = self.config, Mean()
        criterion = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
        self.supernet.train()
        for place, images, labels in batches(self.data, config.epochs, config.batch_size, seed, self.epoch):
            searching = bool(self.open_axes())
            parts = self.step(images, labels, criterion, place.step)
            self.since_beat.add(parts)
            since_epoch.add(parts)
            self.until_beat -= 1
            if searching and self.until_beat < 1:
                self.until_beat += self.interval
                means = self.since_beat.take(f"search, step {place.step + 1}")
                self.history.append(self._record(place.epoch + 1, place.step + 1, means))
                self.decide(survivors(self.supernet, self.cost, self.window, config.threshold), place.step + 1)
            if place.last_of_epoch:
                self.epoch = place.epoch + 1
                means = since_epoch.take(f"search, epoch {self.epoch}")
                if checkpoint is not None:
                    save_checkpoint(checkpoint, self.state(), self.settings)
                if on_epoch:
                    on_epoch(self.epoch, means)

    def step(self, images: Tensor, labels: Tensor, criterion: nn.Module, step: int) -> dict[str, Tensor]:
        """One optimizer step; returns the parts of its loss, on the device."""
        config, supernet = self.config, self.supernet
        for schedule in self.schedules:
            schedule.step_update(step)
        open_axes = self.open_axes()
        taught = None
        if self.teacher is not None:
            with torch.no_grad():
                taught = passes(self.teacher, images)
        if not open_axes:
            task = self._task(supernet.passes(images), labels, criterion, taught)
            descend(task, self.optimizers, config.clip_grad)
            return {"task": task}

        for mask in open_axes.values():
            mask.blend.fill_(config.importance_weight.at(step / self.steps))
        hidden = None
        if supernet.pmim is not None:
            hidden = supernet.pmim.hide(len(images), config.pmim.hidden_share(step / self.steps))
        features, outputs = supernet.passes(images, hidden)
        task = self._task((features, outputs), labels, criterion, taught)
        loss, parts = task, {"task": task}
        if supernet.pmim is not None and hidden is not None:
            rebuilt = supernet.pmim.loss(features, images, hidden)
            loss = loss + config.pmim.weight * (task.detach() / rebuilt.detach().clamp(min=1e-6)) * rebuilt
            parts["reconstruction"] = rebuilt
        one_hot, norm = self._decisiveness(open_axes)
        cost = self.expected(*self._expected_sizes()) / self.full
        gap = cost - (self.window.floor + self.window.limit) / (2 * self.full)
        pull = losses.budget_pull(gap, config.budget_weight, self.multiplier)
        rise = min(1.0, step / max(1.0, self.steps * config.one_hot_warmup))
        loss = loss + config.one_hot_weight * (rise * one_hot + norm) + pull.float()
        descend(loss, self.optimizers, config.clip_grad)
        self.multiplier += config.budget_ascent * gap.detach()
        return parts | {"one_hot": one_hot, "importance_norm": norm, "expected_cost": cost}

    def _task(
        self,
        learned: tuple[Tensor, Tensor],
        labels: Tensor,
        criterion: nn.Module,
        taught: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        """Cross-entropy, and what the parent teaches, []."""
        task: Tensor = criterion(learned[1], labels)
        if self.config.distill is None or taught is None:
            return task
        channels = self.units[self.final].flatten().to(self.device)
        return losses.distilled(task, learned, taught, channels, **self.config.distill.model_dump())

    def state(self) -> dict[str, Any]:
        """All that an interrupted search needs to go on: plain tensors and values."""
        supernet, trained = self.supernet, self.supernet.trained()
        return {
            "epoch": self.epoch,
            "sizes": {axis.name: axis.size for axis in supernet.axes},
            "tensors": {name: parameter.detach() for name, parameter in trained.items()},
            "masks": {name: {"alive": m.alive, "blend": m.blend} for name, m in supernet.masked().items()},
            "optimizers": optimizer_state(self.optimizers, trained),
            "units": self.units,
            "multiplier": self.multiplier,
            "until_beat": self.until_beat,
            "since_beat": self.since_beat.state(),
            "history": self.history,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`; this search has just begun, with the same model, data and configuration."""
        for name, mask in self.supernet.masked().items():
            mask.keep_only_(state["masks"][name]["alive"])
            mask.blend.copy_(state["masks"][name]["blend"])
        if not any(name.startswith("pmim.") for name in state["tensors"]):
            self.supernet.pmim = None
        self.supernet = self.supernet.rebuilt(state["sizes"], state["tensors"])
        self.epoch, self.units, self.history = state["epoch"], dict(state["units"]), list(state["history"])
        self.multiplier, self.until_beat = state["multiplier"], state["until_beat"]
        self.since_beat.load_state(state["since_beat"])
        self._new_optimizers(self.epoch * self.data.num_batches(self.config.batch_size))
        load_optimizer_state(self.optimizers, self.supernet.trained(), state["optimizers"])

    def open_axes(self) -> dict[str, BiMask]:
        """The masks whose axes are not settled yet."""
        return {name: mask for name, mask in self.supernet.masked().items() if not mask.settled}

    def decide(self, alive: Alive, step: int) -> None:
        """Let all other options die and remove the units that none alive can keep; Adam's moments follow."""
        for name, mask in self.supernet.masked().items():
            mask.keep_only_(alive[name])
        if self.open_axes() and all(mask.room == mask.size for mask in self.supernet.masked().values()):
            return
        old = self.supernet
        self.supernet, kept = old.shrunk()
        for name, units in kept.items():
            self.units[name] = self.units[name].flatten()[units.cpu()]
        if not self.open_axes():
            self.supernet.pmim = None
        state = {
            moment: take(tensors, old.bound(), kept, MOMENTS[moment]) if moment in MOMENTS else tensors
            for moment, tensors in optimizer_state(self.optimizers, old.trained()).items()
        }
        self._new_optimizers(step)
        load_optimizer_state(self.optimizers, self.supernet.trained(), state)

    def _start(self, seed: int) -> None:
        """Importance and options as a search begins with them."""
        config, model, axes = self.config.importance, self.supernet.model, self.supernet.axes
        scores = {}
        if config.start == "taylor":
            epoch = self.data.shuffled(self.config.batch_size, seed, epoch=0)
            scores = saliency.taylor(model, axes, islice(epoch, config.start_batches))
        elif config.start == "magnitude":
            scores = saliency.magnitude(model, axes)
        for name, mask in self.supernet.masked().items():
            if name in scores:
                start = saliency.normal_scores(scores[name])
            else:
                start = nn.init.trunc_normal_(torch.empty_like(mask.importance), 0, 1, -2, 2)
            mask.start_(config.mean + config.std * start, torch.rand_like(mask.logits))

    def _new_optimizers(self, step: int) -> None:
        """Three AdamW and their schedules at a step: weights and importance, options' logits, decoder."""
        config, trained = self.config, self.supernet.trained()
        logits = {name: p for name, p in trained.items() if name.endswith(".logits")}
        decoder = {name: p for name, p in trained.items() if name.startswith("pmim.project.")}
        weights = {name: p for name, p in trained.items() if name not in logits | decoder}
        self.optimizers = [adamw(weights, config.lr, config.weight_decay, exempt(self.supernet.model))]
        if logits:
            self.optimizers.append(adamw(logits, config.alpha_lr or 12 / self.steps, 0.0, betas=config.alpha_betas))
        if decoder:
            self.optimizers.append(adamw(decoder, config.pmim.lr, config.weight_decay))
        self.schedules = [cosine(optimizer, self.steps, config.warmup) for optimizer in self.optimizers]
        for schedule in self.schedules:
            schedule.step_update(step)
        masks = self.supernet.masked()
        places = [index for index, axis in enumerate(self.supernet.axes) if axis.name in masks]
        fixed = [[axis.units, axis.size[0]] for axis in self.supernet.axes]
        self._fixed = torch.tensor(fixed, device=self.device, dtype=torch.float32).unbind(1)
        self._masked_places = torch.tensor(places, device=self.device)

    def _decisiveness(self, open_axes: Mapping[str, BiMask]) -> tuple[Tensor, Tensor]:
        """The adaptive one-hot loss and the weighted importance norm, summed over open axes."""
        importance = self.config.importance
        weights = {"attn": importance.norm_attn, "mlp": importance.norm_mlp, "embed": importance.norm_embed}
        one_hot = norm = torch.zeros((), device=self.device)
        for axis in self.supernet.axes:
            if (mask := open_axes.get(axis.name)) is None:
                continue
            norm = norm + weights[axis.kind] * losses.importance_norm(mask.gate())
            if not mask.decided:
                margin = self.config.one_hot_margin
                one_hot = one_hot + losses.adaptive_one_hot(mask.probabilities(), mask.num_alive, margin)
        return one_hot, norm

    def _expected_sizes(self) -> tuple[Tensor, Tensor]:
        """Expected width and number of groups of each axis, [axes] each."""
        masks = [mask.expected_size() for mask in self.supernet.masked().values()]
        widths, groups = (torch.stack(expected) for expected in zip(*masks, strict=True))
        places, (fixed_widths, fixed_groups) = (self._masked_places,), self._fixed
        return fixed_widths.index_put(places, widths), fixed_groups.index_put(places, groups)

    @torch.no_grad()
    def _record(self, epoch: int, step: int, means: Mapping[str, float]) -> dict[str, Any]:
        """What the history keeps of a beat."""
        progress = (step - 1) / self.steps
        masks = self.supernet.masked()
        widths = self._expected_sizes()[0].tolist()
        return {
            "epoch": epoch,
            "step": step,
            **means,
            "importance_weight": self.config.importance_weight.at(progress),
            "mask_ratio": self.config.pmim.hidden_share(progress) if self.supernet.pmim is not None else 0.0,
            "multiplier": float(self.multiplier),
            "axes": [
                {
                    "axis": axis.name,
                    "groups": axis.size[0],
                    "channels": axis.size[1],
                    "options": masks[axis.name].num_alive if axis.name in masks else 1,
                    "expected": width,
                }
                for axis, width in zip(self.supernet.axes, widths, strict=True)
            ],
        }

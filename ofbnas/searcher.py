"""The state of a search, and how a step, a beat and a shrink change it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ofbnas import losses, parallel, saliency
from ofbnas.axes import Axis, final_embedding, set_drop_path
from ofbnas.bimask import BiMask
from ofbnas.budget import window_below
from ofbnas.config import Length, SearchConfig
from ofbnas.cost import Metric, cost_of, sizes_of
from ofbnas.data import Data
from ofbnas.decide import Alive, best_choice, sizes_alive, survivors
from ofbnas.moments import MOMENTS, load_moments, moments, shrunk_moments
from ofbnas.recipe import Average, Descent, adam, autocast, grad_scaler, mixer, weights_optimizer
from ofbnas.shrink import take
from ofbnas.supernet import Supernet
from ofbnas.teacher import Teacher
from ofbnas.tokens import MaskedImageModelling
from ofbnas.training import Mean, OnEpoch, Place, batches, length_of, save_checkpoint

Parts = Sequence[tuple[Tensor, Tensor]]


class Searcher:
    """The state of a search: the supernet, its optimizers, and the budget."""

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
        self.length = length_of(data, config)
        torch.manual_seed(seed)
        pmim = MaskedImageModelling(model) if config.pmim.weight and config.pmim.mask_ratio else None
        self.settings = repr((config, seed, [(axis.name, axis.size, axis.options) for axis in axes]))
        self.teacher = teacher
        if config.distill is not None and teacher is None:
            self.teacher = Teacher(copy.deepcopy(model), config.distill)
        self.supernet = Supernet(copy.deepcopy(model), axes, pmim=pmim, residual_mask=config.residual_mask)
        set_drop_path(self.supernet.model, config.drop_path)
        self._start()
        self.final = final_embedding(axes).name
        self.units = {axis.name: torch.arange(axis.units).view(axis.size) for axis in axes}

        metrics: set[Metric] = {"macs", "params", config.budget.metric()}
        self.costs = {metric: cost_of(model, axes, metric) for metric in metrics}
        self.cost = self.costs[config.budget.metric()]
        self.full = self.cost.of(sizes_of(axes))
        limit = config.budget.limit(self.full)
        self.window = window_below(self.cost, sizes_alive(self.supernet), limit, config.budget.tolerance)
        self.note = None
        if self.window.floor < limit * (1 - config.budget.tolerance):
            self.note = f"no architecture of this space costs between {self.window.floor:,} and the budget {limit:,}"
        self.expected = self.cost.expected(self.device)
        self.multiplier = torch.zeros((), device=self.device, dtype=torch.float64)
        deciding = min(max(1.0, config.decide_by.of(self.length)), self.length.steps)
        self.phase = Length(deciding, self.length.epochs * deciding / self.length.steps)
        self.interval = max(1.0, config.beat.of(self.phase))
        self.until_beat = self.interval
        self.forced = 0
        self.since_beat = Mean()
        self.history: list[dict[str, Any]] = []
        self.epoch = 0
        self.criterion = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
        self.mix = mixer(config.augment, data.num_classes)
        self.scaler = grad_scaler(config, self.device)
        self.average = Average(config.ema, self.supernet.trained()) if config.ema is not None else None
        self._begin_anew()

    def train(self, on_epoch: OnEpoch | None, checkpoint: Path | None) -> None:
        """The epochs that are left, deciding and shrinking on beats."""
        since_epoch = Mean()
        self.supernet.train()
        for place, parts in batches(self.data, self.config, self.seed, self.epoch):
            searching = bool(self.open_axes())
            values = self.step(parts, place.step)
            self.since_beat.add(values)
            since_epoch.add(values)
            if searching:
                self._beat(place)
            if place.last_of_epoch:
                self.epoch = place.epoch + 1
                means = since_epoch.take(f"search, epoch {self.epoch}")
                if checkpoint is not None:
                    save_checkpoint(checkpoint, self.state(), self.settings)
                if on_epoch:
                    on_epoch(self.epoch, means)

    def step(self, parts: Parts, step: int) -> dict[str, Tensor]:
        """One update; returns the parts of its loss, on the device.

        Args:
            parts: Images and labels, in as many parts as are accumulated.
            step: From 0.
        """
        self.descent.begin(step)
        open_axes = self.open_axes()
        if open_axes:
            values = self._search_step(open_axes, parts, step)
        else:
            values = {}
            for images, labels in parts:
                images, labels = (images, labels) if self.mix is None else self.mix(images, labels)
                with autocast(self.config, self.device):
                    task = self._task(self.passes(images), images, labels)
                self.descent.backward(task / len(parts))
                values["task"] = values.get("task", 0) + task.detach() / len(parts)
        self.descent.end()
        if self.average is not None:
            self.average.update(self.supernet.trained(), step)
        return values

    def _search_step(self, open_axes: Mapping[str, BiMask], parts: Parts, step: int) -> dict[str, Tensor]:
        """The gradients of a step while something is open."""
        config, pmim = self.config, self.supernet.pmim
        blend = config.importance_weight.at(step, self.phase)
        for mask in open_axes.values():
            mask.blend.fill_(blend)
        values: dict[str, Tensor] = {}
        for (images, labels), hidden in zip(parts, self._hidden(parts, step), strict=True):
            with autocast(config, self.device):
                both = self.passes(images, hidden)
                task = self._task(both, images, labels)
                found = {"task": task}
                if pmim is not None and hidden is not None:
                    rebuilt = pmim.loss(both[0], images, hidden)
                    found["reconstruction"] = rebuilt
            loss = task
            if "reconstruction" in found:
                scale = task.detach() / rebuilt.detach().clamp(min=1e-6)
                loss = task + config.pmim.weight * scale * rebuilt
            self.descent.backward(loss / len(parts))
            for name, value in found.items():
                values[name] = values.get(name, 0) + value.detach() / len(parts)

        one_hot, norm = self._decisiveness(open_axes)
        cost = self.expected(*self._expected_sizes()) / self.full
        gap = cost - (self.window.floor + self.window.limit) / (2 * self.full)
        pull = losses.budget_pull(gap, config.budget_weight, self.multiplier)
        rise = min(1.0, step / max(1.0, config.one_hot_warmup.of(self.phase)))
        self.descent.backward(config.one_hot_weight * (rise * one_hot + norm) + pull.float())
        self.multiplier += config.budget_ascent * gap.detach()
        return values | {"one_hot": one_hot, "importance_norm": norm, "expected_cost": cost}

    def _hidden(self, parts: Parts, step: int) -> list[Tensor | None]:
        """Patches to hide in each part: the same for an image of a batch, however many processes share the batch."""
        pmim, shard = self.supernet.pmim, parallel.shard()
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
        return self.teacher.loss(task, learned, self.teacher(images), self.channels)

    def _beat(self, place: Place) -> None:
        """After a step of the search: let options die if it is time."""
        self.until_beat -= 1
        over = place.step + 1 >= self.phase.steps
        if self.until_beat < 1 or over:
            self.until_beat += self.interval
            means = self.since_beat.take(f"search, step {place.step + 1}")
            self.history.append(self._record(place.epoch + 1, place.step, means))
            self._agree()
            self.decide(survivors(self.supernet, self.cost, self.window, self.config.threshold))
        if over:
            self._force()

    def _force(self) -> None:
        """Decide what is still open, all together."""
        if open_axes := self.open_axes():
            self.forced += len(open_axes)
            self._agree()
            self.decide(best_choice(self.supernet, self.cost, self.window))

    def _agree(self) -> None:
        """Let all processes decide by the very same numbers."""
        for mask in self.supernet.masked().values():
            parallel.agree_([mask.importance, mask.logits])

    def result(self) -> nn.Module:
        """The plain model as it is now, masks fused, with averaged weights if they are kept."""
        supernet = self.supernet
        if self.average is not None:
            supernet = supernet.rebuilt({}, self.average.tensors)
        model = supernet.fuse()
        set_drop_path(model, 0.0)
        return model.eval()

    def state(self) -> dict[str, Any]:
        """All that an interrupted search needs to go on: plain tensors and values."""
        supernet, trained = self.supernet, self.supernet.trained()
        return {
            "epoch": self.epoch,
            "sizes": {axis.name: axis.size for axis in supernet.axes},
            "tensors": {name: parameter.detach() for name, parameter in trained.items()},
            "masks": {name: {"alive": m.alive, "blend": m.blend} for name, m in supernet.masked().items()},
            "moments": moments(self.descent.optimizers, trained),
            "scaler": self.scaler.state_dict(),
            "average": self.average.tensors if self.average is not None else {},
            "units": self.units,
            "multiplier": self.multiplier,
            "until_beat": self.until_beat,
            "since_beat": self.since_beat.state(),
            "forced": self.forced,
            "history": self.history,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`; this search has just begun, with the same model, data and configuration."""
        self.supernet = self.supernet.only(state["masks"])
        for name, mask in self.supernet.masked().items():
            mask.keep_only_(state["masks"][name]["alive"])
            mask.blend.copy_(state["masks"][name]["blend"])
        if not any(name.startswith("pmim.") for name in state["tensors"]):
            self.supernet.pmim = None
        self.supernet = self.supernet.rebuilt(state["sizes"], state["tensors"])
        self.epoch, self.units, self.history = state["epoch"], dict(state["units"]), list(state["history"])
        self.multiplier, self.until_beat, self.forced = state["multiplier"], state["until_beat"], state["forced"]
        self.since_beat.load_state(state["since_beat"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.tensors = dict(state["average"])
        self._begin_anew()
        load_moments(self.descent.optimizers, self.supernet.trained(), state["moments"])

    def open_axes(self) -> dict[str, BiMask]:
        """The masks whose axes are not settled yet."""
        return {name: mask for name, mask in self.supernet.masked().items() if not mask.settled}

    def decide(self, alive: Alive) -> None:
        """Let all other options die and remove the units that none alive can keep; moments and averages follow."""
        masks = self.supernet.masked()
        for name, mask in masks.items():
            mask.keep_only_(alive[name])
        shrinks = any(mask.room != mask.size for mask in masks.values())
        folds = self.config.decided_masks == "folded" and any(mask.decided for mask in masks.values())
        if not (shrinks or folds or all(mask.decided for mask in masks.values())):
            return
        old = self.supernet
        held = moments(self.descent.optimizers, old.trained())
        self.supernet, kept = old.shrunk()
        bound = old.bound()
        held = shrunk_moments(held, bound, kept)
        if self.average is not None:
            self.average.tensors = take(self.average.tensors, bound, kept)
        for name, units in kept.items():
            self.units[name] = self.units[name].flatten()[units.cpu()]
        if folds:
            held = self._fold([name for name, mask in self.supernet.masked().items() if mask.settled], held)
        if not self.open_axes():
            self.supernet.pmim = None
        if self.average is not None:
            trained = self.supernet.trained()
            self.average.tensors = {n: tensor for n, tensor in self.average.tensors.items() if n in trained}
        self._begin_anew()
        load_moments(self.descent.optimizers, self.supernet.trained(), held)

    def _fold(self, names: Sequence[str], held: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
        """Multiply masks into the weights and drop them; gives the moments that go with the new weights."""
        before = self.supernet
        self.supernet = before.folded(names)
        if self.average is not None:
            self.average.tensors = dict(before.rebuilt({}, self.average.tensors).folded(names).trained())
        ones = {name: torch.ones_like(parameter) for name, parameter in before.trained().items()}
        with torch.no_grad():
            gains = before.only(names).masked_tensors(ones)
        return {
            kind: {
                name: tensor * gains[name].clamp(min=0.01) ** MOMENTS[kind] if MOMENTS[kind] else tensor
                for name, tensor in tensors.items()
            }
            for kind, tensors in held.items()
        }

    def _start(self) -> None:
        """Importance and options as a search begins with them."""
        config, model, axes = self.config.importance, self.supernet.model, self.supernet.axes
        scores = {}
        if config.start == "taylor":
            epoch = self.data.shuffled(self.config.batch_size, self.seed, epoch=0, shard=parallel.shard())
            scores = saliency.taylor(model, axes, islice(epoch, config.start_batches))
        elif config.start == "magnitude":
            scores = saliency.magnitude(model, axes)
        for name, mask in self.supernet.masked().items():
            if name in scores:
                start = saliency.normal_scores(scores[name])
            else:
                start = nn.init.trunc_normal_(torch.empty_like(mask.importance), 0, 1, -2, 2)
            logits = self.config.alpha.spread * torch.rand_like(mask.logits)
            mask.start_(config.mean + config.std * start, logits)
        parallel.agree_(self.supernet.trained().values())

    def _begin_anew(self) -> None:
        """What belongs to the present supernet: three optimizers (weights and importance, logits, decoder), places."""
        config, trained = self.config, self.supernet.trained()
        names = {name: p for name, p in trained.items() if name.startswith(("masks.", "pmim."))}
        logits = [p for name, p in names.items() if name.endswith(".logits")]
        decoder = [p for name, p in names.items() if name.startswith("pmim.project.")]
        others = {n: p for n, p in names.items() if not n.endswith(".logits") and not n.startswith("pmim.project.")}
        self.descent = Descent(config, self.length, self.scaler)
        self.descent.add(weights_optimizer(self.supernet.model, config, others), config)
        if logits:
            self.descent.add(
                adam(logits, config.alpha.highest(self.phase), config.alpha.betas), config.alpha, self.phase
            )
        if decoder:
            rate = config.pmim.decoder
            self.descent.add(adam(decoder, rate.lr, weight_decay=config.weight_decay), rate, self.phase)
        self.passes: Any = self.supernet.passes
        if config.compile:
            torch.compiler.reset()  # what was compiled for wider tensors would count against torch's limit
            self.passes = torch.compile(self.supernet.passes)
        self.channels = self.units[self.final].flatten().to(self.device)
        masks = self.supernet.masked()
        places = [index for index, axis in enumerate(self.supernet.axes) if axis.name in masks]
        self._masked_places = torch.tensor(places, device=self.device)
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
        masks = self.supernet.masked()
        widths = self._expected_sizes()[0].tolist()
        return {
            "epoch": epoch,
            "step": step + 1,
            **means,
            "importance_weight": self.config.importance_weight.at(step, self.phase),
            "mask_ratio": 0.0 if self.supernet.pmim is None else self.config.pmim.hidden_share(step, self.phase),
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

"""What a search trains: the supernet, and all that has to follow when it shrinks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ofbnas.axes import final_embedding, set_drop_path
from ofbnas.bimask import BiMask
from ofbnas.config import Length, SearchConfig
from ofbnas.decide import Alive
from ofbnas.moments import MOMENTS, load_moments, moments, shrunk_moments
from ofbnas.recipe import Average, Descent, adam, grad_scaler, weights_optimizer
from ofbnas.shrink import take
from ofbnas.supernet import Supernet


class Learner:
    """A supernet with its optimizers and the average of its weights.

    Attributes:
        supernet: As it is now; a shrink makes a new one.
        descent: Its optimizers and their schedules.
        passes: Features and outputs of images; compiled, if that is asked for.
        units: For each axis, which of the parent's units are left, [groups, channels].
        channels: The parent's channels that are left in the final features.
    """

    def __init__(
        self, supernet: Supernet, config: SearchConfig, length: Length, phase: Length, device: torch.device
    ) -> None:
        """Begin with a supernet.

        Args:
            supernet: On the device.
            config: Of the search.
            length: Of the whole run.
            phase: Of its part in which something may be open.
            device: Where all is.
        """
        self.supernet, self.config, self.length, self.phase, self.device = supernet, config, length, phase, device
        self.units = {axis.name: torch.arange(axis.units).view(axis.size) for axis in supernet.axes}
        self.scaler = grad_scaler(config, device)
        self.average = Average(config.ema, supernet.trained()) if config.ema is not None else None
        self._begin_anew()

    def update(self, step: int) -> None:
        """Take the step, counted from 0, that the gradients say."""
        self.descent.end()
        if self.average is not None:
            self.average.update(self.supernet.trained(), step)

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

    def result(self) -> nn.Module:
        """The plain model as it is now, masks fused, with averaged weights if they are kept."""
        supernet = self.supernet
        if self.average is not None:
            supernet = supernet.rebuilt({}, self.average.tensors)
        model = supernet.fuse()
        if self.config.drop_path:
            set_drop_path(model, 0.0)
        return model.eval()

    def state(self) -> dict[str, Any]:
        """Plain tensors and values, from which `load_state` makes an equal learner."""
        supernet, trained = self.supernet, self.supernet.trained()
        return {
            "sizes": {axis.name: axis.size for axis in supernet.axes},
            "tensors": {name: parameter.detach() for name, parameter in trained.items()},
            "masks": {name: {"alive": m.alive, "blend": m.blend} for name, m in supernet.masked().items()},
            "moments": moments(self.descent.optimizers, trained),
            "scaler": self.scaler.state_dict(),
            "average": self.average.tensors if self.average is not None else {},
            "units": self.units,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`; this learner has just begun, with the same supernet and configuration."""
        supernet = self.supernet.only(state["masks"])
        for name, mask in supernet.masked().items():
            mask.keep_only_(state["masks"][name]["alive"])
            mask.blend.copy_(state["masks"][name]["blend"])
        if not any(name.startswith("pmim.") for name in state["tensors"]):
            supernet.pmim = None
        self.supernet = supernet.rebuilt(state["sizes"], state["tensors"])
        self.units = dict(state["units"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.tensors = dict(state["average"])
        self._begin_anew()
        load_moments(self.descent.optimizers, self.supernet.trained(), state["moments"])

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

    def _begin_anew(self) -> None:
        """What goes with the present supernet: optimizers of weights and importance, of logits, of the decoder."""
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
        self.channels = self.units[final_embedding(self.supernet.axes).name].flatten().to(self.device)

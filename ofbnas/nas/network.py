"""What a search trains: the supernet, and all that has to follow when it shrinks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ofbnas.config import Length, SearchConfig
from ofbnas.models.axes import final_embedding, set_drop_path
from ofbnas.models.bimask import BiMask
from ofbnas.models.moments import Moments, Shrink, load_moments, moments
from ofbnas.models.shrink import Kept, take
from ofbnas.models.supernet import Supernet
from ofbnas.nas.compensation import Cut, compensate_
from ofbnas.nas.decide import Alive
from ofbnas.nas.images import first_images
from ofbnas.nas.plain import Network
from ofbnas.training.data import Data
from ofbnas.training.recipe import Average, Optimizers, adamw, grad_scaler, weights_optimizer

MIN_GAIN = 0.01  # of a folded mask, where moments are scaled by it


class ShrinkingNetwork:
    """A supernet with its optimizers and the average of its weights, which shrink together.

    Parameters are never resized in place, which DistributedDataParallel and a live autograd graph
    would not survive: a shrink makes a new supernet and new optimizers, and carries tensors and
    moments over by name.

    Attributes:
        supernet: The supernet as it is now; a shrink replaces it.
        optimizers: Those of weights and importance, of the options' logits, and of the decoder.
        passes: Gives features and outputs of images; compiled, if that is configured.
        units: For each axis, which of the parent's units are left, [groups, channels].
        channels: The parent's channels that are left in the final features, [channels].
        trains_weights: Whether `optimizers` has one of the model's weights, which otherwise someone
            else trains.
        followers: Told of every shrink, once the new parameters are there.
    """

    def __init__(
        self,
        supernet: Supernet,
        config: SearchConfig,
        length: Length,
        phase: Length,
        device: torch.device,
    ) -> None:
        """Begin with a supernet.

        Args:
            supernet: The supernet, on the device.
            config: Configuration of the search.
            length: Length of the whole run.
            phase: Length of the part of it in which options are open.
            device: The device that is trained on.
        """
        self.supernet = supernet
        self.config = config
        self.length = length
        self.phase = phase
        self.device = device
        self.units = Network.whole(supernet.model, supernet.axes).units
        self.trains_weights = True
        self.followers: list[Callable[[Shrink], None]] = []
        self.scaler = grad_scaler(config, device)
        self.average = None
        if config.ema is not None:
            self.average = Average(config.ema, supernet.trained())
        self._renew()

    def open_axes(self) -> dict[str, BiMask]:
        """The masks of the axes that are not settled yet."""
        masks = self.supernet.masked()
        return {name: mask for name, mask in masks.items() if not mask.settled}

    def update_average(self, step: int) -> None:
        """Update the average with the weights after a step, counted from 0."""
        if self.average is not None:
            self.average.update(self.supernet.trained(), step)

    def keep_options(self, alive: Alive) -> None:
        """Remove all other options, and the units that no option left can keep.

        Moments and averages follow.

        Args:
            alive: For each mask, which options stay.
        """
        masks = self.supernet.masked()
        for name, mask in masks.items():
            mask.keep_only_(alive[name])
        decided = [mask.decided for mask in masks.values()]
        shrinks = any(mask.widest != mask.size for mask in masks.values())
        folds = self.config.decided_masks == "folded" and any(decided)
        if not (shrinks or folds or all(decided)):
            return

        before = self.supernet
        held = self._moments()
        kept = self._shrink()
        gains = None
        if folds:
            shrunk_masks = self.supernet.masked()
            settled = [name for name, mask in shrunk_masks.items() if mask.settled]
            gains = self._fold(settled)
        if not self.open_axes():
            self.supernet.pmim = None  # masked image modelling ends with the search

        if self.average is not None:
            # Folded masks and the decoder are trained no longer, so they have no average either.
            trained = self.supernet.trained()
            averages = self.average.tensors
            self.average.tensors = {name: averages[name] for name in averages if name in trained}
        shrink = Shrink(
            dict(before.model.named_parameters()),
            dict(self.supernet.model.named_parameters()),
            axes=before.bound(),
            kept=kept,
            gains=gains,
        )
        self._renew()
        load_moments(self.optimizers.optimizers, self.supernet.trained(), shrink.moments(held))
        self._tell(shrink)

    def leave_weights(self, config: SearchConfig) -> None:
        """Train only importance, logits and the decoder from now on, with a configuration."""
        self.config = config
        self.trains_weights = False
        self.scaler = grad_scaler(config, self.device)
        self._renew()

    def restart(self, units: Mapping[str, Tensor], parent: Network, data: Data, seed: int) -> None:
        """Go on from the parent's own weights, cut to some of its units and compensated.

        What the search has trained is dropped: weights, masks, moments and averages.

        Args:
            units: For each axis, which of the parent's units it keeps, [groups, channels].
            parent: The parent.
            data: Its training images are compensated on.
            seed: Of their order.
        """
        before = dict(self.supernet.model.named_parameters())
        self.units = dict(units)
        kept = {name: left.to(self.device) for name, left in units.items()}
        network = parent.cut(kept)
        images = first_images(data, self.config.compensation.images, seed)
        compensate_(Cut.between(parent, network), lambda: images, self.config.compensation.ridge)
        if self.config.drop_path:
            set_drop_path(network.model, self.config.drop_path)
        self.supernet = Supernet(network.model, network.axes, masks={}).train()
        if self.average is not None and self.config.ema is not None:
            self.average = Average(self.config.ema, self.supernet.trained())
        self._renew()
        self._tell(Shrink(before, dict(self.supernet.model.named_parameters()), restarts=True))

    def fused(self) -> nn.Module:
        """The plain model as it is now, masks fused; with averaged weights if there are any."""
        supernet = self.supernet
        if self.average is not None:
            supernet = supernet.rebuilt({}, self.average.tensors)
        model = supernet.fuse()
        if self.config.drop_path:
            set_drop_path(model, 0.0)
        return model.eval()

    def plain(self) -> Network:
        """The plain model as it is now, with its axes and units."""
        return Network(self.fused(), list(self.supernet.axes), dict(self.units))

    def state(self) -> dict[str, Any]:
        """Plain tensors and values, from which `load_state` makes an equal network."""
        trained = self.supernet.trained()
        masks: dict[str, dict[str, Tensor]] = {}
        for name, mask in self.supernet.masked().items():
            masks[name] = {"alive": mask.alive, "blend": mask.blend}
        return {
            "sizes": {axis.name: axis.size for axis in self.supernet.axes},
            "tensors": {name: parameter.detach() for name, parameter in trained.items()},
            "masks": masks,
            "moments": self._moments(),
            "scaler": self.scaler.state_dict(),
            "average": {} if self.average is None else self.average.tensors,
            "units": self.units,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore `state` in a network that has just been made, with the same arguments."""
        before = dict(self.supernet.model.named_parameters())
        # Masks that were folded are missing in the state, and so is a decoder that was dropped.
        supernet = self.supernet.only(state["masks"])
        for name, mask in supernet.masked().items():
            mask_state = state["masks"][name]
            mask.keep_only_(mask_state["alive"])
            mask.blend.copy_(mask_state["blend"])
        has_decoder = any(name.startswith("pmim.") for name in state["tensors"])
        if not has_decoder:
            supernet.pmim = None
        self.supernet = supernet.rebuilt(state["sizes"], state["tensors"])

        self.units = dict(state["units"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.tensors = dict(state["average"])
        self._renew()
        load_moments(self.optimizers.optimizers, self.supernet.trained(), state["moments"])
        self._tell(Shrink(before, dict(self.supernet.model.named_parameters()), restarts=True))

    def _moments(self) -> Moments:
        """The optimizers' moments and step counts, by kind and by parameter's name."""
        return moments(self.optimizers.optimizers, self.supernet.trained())

    def _tell(self, shrink: Shrink) -> None:
        """Tell all who hold parameters that there are new ones."""
        for follow in self.followers:
            follow(shrink)

    def _shrink(self) -> Kept:
        """Replace the supernet by one without the units that can no longer be kept.

        Returns:
            The units that were kept, of each axis that lost some.
        """
        wide = self.supernet
        self.supernet, kept = wide.shrunk()
        if self.average is not None:
            self.average.tensors = take(self.average.tensors, wide.bound(), kept)
        # What was kept is numbered by the units before the shrink; record the parent's numbers.
        for name, units in kept.items():
            before = self.units[name].flatten()
            self.units[name] = before[units.cpu()]
        return kept

    def _fold(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Multiply masks into the weights and drop them.

        Where a weight w under a mask m becomes w' = m w, its gradient becomes dL/dw' = (dL/dw) / m:
        so moments scale by a power of the gain m, -1 for means of gradients, -2 for their squares.

        Returns:
            The gains, by the names of the tensors before.
        """
        masked = self.supernet
        self.supernet = masked.folded(names)
        if self.average is not None:
            averaged = masked.rebuilt({}, self.average.tensors)
            self.average.tensors = dict(averaged.folded(names).trained())
        return _gains(masked.only(names), masked.trained())

    def _renew(self) -> None:
        """Make what belongs to the present supernet anew: optimizers, compiled passes, channels."""
        config = self.config
        logits: list[nn.Parameter] = []
        decoder: list[nn.Parameter] = []
        with_weights: dict[str, nn.Parameter] = {}  # importance and the mask token
        for name, parameter in self.supernet.trained().items():
            if not name.startswith(("masks.", "pmim.")):
                continue  # the model's own, which `weights_optimizer` finds
            if name.endswith(".logits"):
                logits.append(parameter)
            elif name.startswith("pmim.project."):
                decoder.append(parameter)
            else:
                with_weights[name] = parameter

        self.optimizers = Optimizers(config, self.length, self.scaler)
        if self.trains_weights:
            # The first one added has its gradients clipped.
            optimizer = weights_optimizer(self.supernet.model, config, with_weights)
            self.optimizers.add(optimizer, config)
        elif with_weights:
            self.optimizers.add(adamw(with_weights.values(), config.lr), config)
        if logits:
            lr = config.alpha.highest(self.phase)
            optimizer = adamw(logits, lr, config.alpha.betas)
            self.optimizers.add(optimizer, config.alpha, self.phase)
        if decoder:
            rate = config.pmim.decoder
            optimizer = adamw(
                decoder,
                rate.lr,
                weight_decay=config.weight_decay,
            )
            self.optimizers.add(optimizer, rate, self.phase)

        self.passes: Any = self.supernet.passes
        if config.compile:
            # What was compiled for wider tensors would count against torch's limit.
            torch.compiler.reset()
            self.passes = torch.compile(self.supernet.passes)
        final = final_embedding(self.supernet.axes).name
        self.channels = self.units[final].flatten().to(self.device)


@torch.no_grad()
def _gains(supernet: Supernet, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By how much the masks multiply each of the tensors: what they make of ones.

    Clamped, as what is divided by a gain near 0 would be of any size.
    """
    ones = {name: torch.ones_like(tensor) for name, tensor in tensors.items()}
    masked = supernet.masked_tensors(ones)
    return {name: gain.clamp(min=MIN_GAIN) for name, gain in masked.items()}

"""The network of a search as a module that stays the same while it shrinks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from torch import Tensor, nn

from ofbnas.errors import InputError
from ofbnas.nas.network import ShrinkingNetwork


class SearchedModel(nn.Module):
    """A network under its masks, for a loop that holds one module.

    Its parameters are the weights alone: masks are trained by ofbnas.

    Attributes:
        timm: The timm model as it is now; a shrink replaces it.
    """

    def __init__(self, network: ShrinkingNetwork, passes: Callable[[Tensor], Tensor]) -> None:
        """Wrap a network.

        Args:
            network: The network.
            passes: Gives outputs of images.
        """
        super().__init__()
        self.timm = network.supernet.model
        self._network = network
        self._passes = passes

    def forward(self, images: Tensor) -> Tensor:
        """Outputs, [images, classes], of images, [images, channels, height, width].

        Raises:
            InputError: It is a replica of torch's DataParallel.
        """
        if getattr(self, "_is_replica", False):
            raise InputError(
                "DataParallel copies the weights, which are then not trained: use one device"
            )
        return self._passes(images)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the network, under its masks."""
        super().train(mode)
        self._network.supernet.train(mode)
        return self

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that the model exempts, for timm's optimizers."""
        exempt: Any = getattr(self.timm, "no_weight_decay", set)
        return {f"timm.{name}" for name in exempt()}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = next(self.parameters())
        device, dtype = before.device, before.dtype
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        now = next(self.parameters())
        if (now.device, now.dtype) != (device, dtype):
            raise InputError(
                f"the searched model was moved from {device}, {dtype} to {now.device}, {now.dtype}, "
                "and its masks were not: move the parent before SearchRun takes it"
            )
        return self

"""Blocks that are finished: while later layers are solved, they give the same for the same images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ofbnas.nas.readers import Reader

KEPT_BYTES = 2**31  # of outputs of one model, or of activations of one parent


@dataclass(frozen=True)
class _Block:
    """A member of an `nn.Sequential` or `nn.ModuleList` with layers to solve.

    Attributes:
        name: Its name in the model.
        module: The block.
        last: Position of the last of its layers, among all layers to solve.
        later: Names of the members behind it in an `nn.Sequential`, which alone read what it gives.
    """

    name: str
    module: nn.Module
    last: int
    later: Sequence[str]

    def contains(self, name: str) -> bool:
        """Whether a module is inside the block."""
        return name.startswith(f"{self.name}.")


class FinishedBlocks:
    """The outputs of blocks none of whose layers will change any more.

    A layer is solved with the inputs that it gets once those before it are solved, so there is a
    forward pass for each. If each went through all blocks before, the time of all passes would grow
    with the square of the depth. Layers that are called more than once are not solved, so neither
    is there a block that is.
    """

    def __init__(
        self, model: nn.Module, readers: Sequence[Reader], kept_bytes: int = KEPT_BYTES
    ) -> None:
        """Begin with no outputs.

        Args:
            model: In evaluation mode; layers change in the order of `readers` only.
            readers: The layers to solve, in the order of the forward pass.
            kept_bytes: How many bytes of outputs may be kept; batches that do not fit go through all
                blocks.
        """
        self.positions = {reader.name: position for position, reader in enumerate(readers)}
        self.blocks = _blocks(model, list(self.positions))
        self.outputs: dict[tuple[str, int], Tensor] = {}
        self.bytes_left = kept_bytes

    @contextmanager
    def skipped(self, reader: Reader, batch: int) -> Iterator[None]:
        """Skip finished blocks in forward passes.

        Args:
            reader: The layer that is being solved; all before it are.
            batch: Number of the batch of images that goes through the model.
        """
        with ExitStack() as stack:
            for block in self.blocks:
                if block.last >= self.positions[reader.name]:
                    continue
                if any((later, batch) in self.outputs for later in block.later):
                    stack.enter_context(_replaced(block.module, _unchanged))
                elif (block.name, batch) in self.outputs:
                    output = self.outputs[block.name, batch]
                    stack.enter_context(_replaced(block.module, _giving(output)))
                else:
                    hook = block.module.register_forward_hook(self._keep(block, batch))
                    stack.callback(hook.remove)
            yield

    def _keep(self, block: _Block, batch: int) -> Callable[..., None]:
        """A forward hook that keeps a block's output, in place of those that only lead to it.

        Outputs are copied when they are kept and when they are given, as a model may change them.
        """

        def hook(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if not isinstance(output, Tensor):
                return
            leading = [
                (other.name, batch)
                for other in self.blocks
                if block.name in other.later or block.contains(other.name)
            ]
            replaced = [place for place in leading if place in self.outputs]
            left = self.bytes_left + sum(self.outputs[place].nbytes for place in replaced)
            if output.nbytes > left:
                return
            for place in replaced:
                del self.outputs[place]
            self.bytes_left = left - output.nbytes
            self.outputs[block.name, batch] = output.detach().clone()

        return hook


def _blocks(model: nn.Module, layers: Sequence[str]) -> list[_Block]:
    """The members of all sequences and lists of modules that have such layers inside."""
    blocks: list[_Block] = []
    for place, modules in model.named_modules():
        if not isinstance(modules, nn.Sequential | nn.ModuleList):
            continue
        is_chain = type(modules) is nn.Sequential  # classes made from it may do anything
        prefix = f"{place}." if place else ""
        children = [(f"{prefix}{child}", module) for child, module in modules.named_children()]
        for index, (name, module) in enumerate(children):
            inside = [number for number, layer in enumerate(layers) if layer.startswith(f"{name}.")]
            if inside:
                later = [other for other, _ in children[index + 1 :]] if is_chain else []
                blocks.append(_Block(name, module, inside[-1], later))
    return blocks


def _unchanged(x: Any, *args: Any, **kwargs: Any) -> Any:
    """In place of a block whose output nobody will read."""
    return x


def _giving(output: Tensor) -> Callable[..., Tensor]:
    """In place of a block: its output."""

    def forward(*args: Any, **kwargs: Any) -> Tensor:
        return output.clone()

    return forward


@contextmanager
def _replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """A module with another forward method."""
    before = module.__dict__.get("forward")
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        del module.__dict__["forward"]
        if before is not None:
            module.__dict__["forward"] = before

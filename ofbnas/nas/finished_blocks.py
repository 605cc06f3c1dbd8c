"""Outputs of blocks that stay the same for the same images, while what comes after them changes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

# Skips blocks in forward passes of a batch of images, which is given by its number.
Skipping = Callable[[int], AbstractContextManager[None]]
KEPT_BYTES = 2**31  # of outputs of one model, or of activations of one parent


@dataclass(frozen=True)
class _Block:
    """A member of an `nn.Sequential` or `nn.ModuleList` with layers inside.

    Attributes:
        name: Its name in the model.
        first: Position of the first of its layers, among all layers.
        last: Position of the last one.
        later: Names of the members behind it in an `nn.Sequential`, which alone read what it gives.
    """

    name: str
    first: int
    last: int
    later: Sequence[str]

    def contains(self, name: str) -> bool:
        """Whether a module or tensor is inside the block."""
        return name.startswith(f"{self.name}.")


class FinishedBlocks:
    """The outputs of blocks that come before all that changes.

    Layers are changed one after the other, or one after the other is tried with changes, in the order
    of the forward pass, and there are passes for each. If each pass went through all blocks before,
    the time of all passes would grow with the square of the depth.
    """

    def __init__(
        self, model: nn.Module, layers: Sequence[str], kept_bytes: int = KEPT_BYTES
    ) -> None:
        """Begin with no outputs.

        Args:
            model: Tells which blocks there are.
            layers: The layers that change, by name, in the order of the forward pass, which calls
                each of them once.
            kept_bytes: How many bytes of outputs may be kept; batches that do not fit go through all
                blocks.
        """
        self.blocks = _blocks(model, layers)
        self.outputs: dict[tuple[str, int], Tensor] = {}
        self.bytes_left = kept_bytes

    def position(self, tensors: Collection[str]) -> int:
        """Position of the first layer of the smallest block with all of these tensors, or else 0."""
        around = [block for block in self.blocks if all(map(block.contains, tensors))]
        return max((block.first for block in around), default=0)

    def before(self, position: int, model: nn.Module) -> Skipping:
        """Lets forward passes skip the blocks all of whose layers are before one.

        Args:
            position: Of that layer.
            model: In evaluation mode. In these blocks, it is as all models at calls before.
        """
        return partial(self._skipped, position, model)

    @contextmanager
    def _skipped(self, position: int, model: nn.Module, batch: int) -> Iterator[None]:
        finished = [block for block in self.blocks if block.last < position]
        kept = {block.name for block in finished if (block.name, batch) in self.outputs}
        with ExitStack() as stack:
            for block in finished:
                module = model.get_submodule(block.name)
                if kept.intersection(block.later):
                    stack.enter_context(_replaced(module, _unchanged))
                elif block.name in kept:
                    output = self.outputs[block.name, batch]
                    stack.enter_context(_replaced(module, _giving(output)))
                else:
                    hook = module.register_forward_hook(self._keep(block, batch))
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


def skip_none(_: int) -> AbstractContextManager[None]:
    """Lets forward passes go through all blocks."""
    return nullcontext()


def _blocks(model: nn.Module, layers: Sequence[str]) -> list[_Block]:
    """The members of all sequences and lists of modules that have such layers inside."""
    blocks: list[_Block] = []
    for place, modules in model.named_modules():
        if not isinstance(modules, nn.Sequential | nn.ModuleList):
            continue
        is_chain = type(modules) is nn.Sequential  # classes made from it may do anything
        prefix = f"{place}." if place else ""
        children = [f"{prefix}{child}" for child, _ in modules.named_children()]
        for index, name in enumerate(children):
            inside = [number for number, layer in enumerate(layers) if layer.startswith(f"{name}.")]
            if inside:
                later = children[index + 1 :] if is_chain else []
                blocks.append(_Block(name, inside[0], inside[-1], later))
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

"""The linear layers of a model that compensation solves, found through the bindings of axes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ofbnas.models.axes import Axis, Binding

Dimensions = dict[int, tuple[Axis, Binding]]


class EndOfPass(Exception):  # noqa: N818 (it is not an error)
    """Raised by a hook to end a forward pass whose remaining layers are not needed."""


@dataclass(frozen=True)
class Reader:
    """A linear layer to solve, and where its effect is compared with the parent.

    Attributes:
        name: The layer.
        norm: For a layer that writes into the stream, the next norm, whose inputs are compared;
            None for the layer's own outputs.
        lies_along: The axis and binding along which the compared activations lie; None if no axis
            is there, as behind a classifier.
    """

    name: str
    norm: str | None
    lies_along: tuple[Axis, Binding] | None


def find_readers(model: nn.Module, axes: Sequence[Axis], images: Tensor) -> list[Reader]:
    """The layers that can be solved, in the order of the forward pass.

    Args:
        model: In evaluation mode.
        axes: Its axes.
        images: For one forward pass.
    """
    dimensions: dict[str, Dimensions] = {}
    for axis in axes:
        for binding in axis.bindings:
            dimensions.setdefault(binding.tensor, {})[binding.dim] = (axis, binding)

    readers: list[Reader] = []
    called = _called_once(model, images)
    for index, (name, module) in enumerate(called):
        known = dimensions.get(f"{name}.weight", {})
        # A layer over heads, as in attention with talking heads, mixes no units.
        reads_units = 1 in known and not known[1][1].per_group
        if _is_norm(module) or not reads_units:
            continue
        outputs = known.get(0)
        norm = None
        if outputs is not None and outputs[0].kind == "embed":
            later_norms = [
                later
                for later, module in called[index:]
                if _is_norm(module) and _lies_along_stream(dimensions.get(f"{later}.weight", {}))
            ]
            norm = _next_norm(model, name, later_norms, images)
        if norm is not None:
            outputs = dimensions[f"{norm}.weight"][0]
        readers.append(Reader(name, norm, outputs))
    return readers


def _next_norm(model: nn.Module, layer: str, norms: Sequence[str], images: Tensor) -> str | None:
    """The first norm that reads what a layer writes, if there is no more than the stream between.

    None if the layer does not write into the stream, but makes queries, say, of an attention that
    is as wide as it.
    """
    seen: dict[str, Tensor] = {}

    def end_if_reached(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Tensor]) -> None:
            if args[0].requires_grad:
                seen[name] = args[0]
                raise EndOfPass

        return hook

    hooks = [
        model.get_submodule(layer).register_forward_hook(start_graph(seen)),
        *(
            model.get_submodule(norm).register_forward_pre_hook(end_if_reached(norm))
            for norm in norms
        ),
    ]
    with torch.no_grad(), hooked(*hooks):
        model(images)
    outputs = seen.pop("outputs")
    seen.pop("inputs")
    for norm, reached in seen.items():
        # Between them there are only an order of tokens and scales if signs come back as the
        # numbers that ones come back as, up to the sign, and each to one place: a mean over tokens
        # would come back to many.
        generator = torch.Generator().manual_seed(0)
        signs = torch.randint(0, 2, reached.shape, generator=generator).to(reached) * 2 - 1
        (of_signs,) = torch.autograd.grad(reached, outputs, signs, retain_graph=True)
        (of_ones,) = torch.autograd.grad(reached, outputs, torch.ones_like(reached))
        keeps_tokens = of_ones.count_nonzero() <= reached.numel()
        if keeps_tokens and torch.equal(of_signs.abs(), of_ones.abs()):
            return norm
    return None


def start_graph(seen: dict[str, Tensor]) -> Callable[..., Tensor]:
    """A forward hook that keeps a layer's inputs and outputs, and records what follows."""

    def hook(_: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
        seen["inputs"] = args[0]
        seen["outputs"] = output.requires_grad_()
        torch.set_grad_enabled(True)  # from here on only: all before would take memory
        return seen["outputs"]

    return hook


def _lies_along_stream(dimensions: Dimensions) -> bool:
    return 0 in dimensions and dimensions[0][0].kind == "embed"


def _is_norm(module: nn.Module) -> bool:
    return hasattr(module, "normalized_shape")


def _called_once(model: nn.Module, images: Tensor) -> list[tuple[str, nn.Module]]:
    """The linear layers and norms that a forward pass calls exactly once, in its order."""
    calls: list[str] = []

    def note(name: str) -> Callable[..., None]:
        return lambda *_: calls.append(name)

    modules = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) or _is_norm(module)
    }
    with hooked(
        *(module.register_forward_pre_hook(note(name)) for name, module in modules.items())
    ):
        model(images)
    return [(name, modules[name]) for name in calls if calls.count(name) == 1]


@contextmanager
def hooked(*hooks: Any) -> Iterator[None]:
    """Remove the hooks of a forward pass, which one of them may end, behind it."""
    try:
        yield
    except EndOfPass:
        pass
    finally:
        for hook in hooks:
            hook.remove()

"""What a model costs at given sizes: multiply-accumulates per image, or parameters."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ofbnas.axes import Axis, Binding, input_size, reference_counts
from ofbnas.errors import InputError

Metric = Literal["macs", "params", "reference_macs"]
Sizes = Sequence[tuple[int, int]] | NDArray[np.int64]


@dataclass(frozen=True)
class Cost:
    """A cost as a function of widths w and groups g: constant + linear @ w + grouped @ g + w @ quadratic @ w.

    The widths of a Vision Transformer meet at most in pairs (a weight joins two axes), so this form is exact. Its
    coefficients do not change when units are removed. An axis meets itself where attention goes with the stream.

    Attributes:
        names: The axes, in the order of the coefficients.
        constant: Cost that no axis changes.
        linear: Cost per unit, [axes], whole numbers.
        grouped: Cost per group, a head in an attention, [axes], whole numbers.
        quadratic: Cost per pair of units, [axes, axes], whole numbers, upper triangle.
    """

    names: tuple[str, ...]
    constant: int
    linear: NDArray[np.int64]
    grouped: NDArray[np.int64]
    quadratic: NDArray[np.int64]

    def of(self, sizes: Sizes) -> int:
        """The cost at sizes (groups, channels), in the order of `names`."""
        groups, channels = np.asarray(sizes, dtype=np.int64).reshape(-1, 2).T
        w = groups * channels
        return self.constant + int(self.linear @ w) + int(self.grouped @ groups) + int(w @ self.quadratic @ w)

    def expected(self, device: torch.device | str = "cpu") -> Callable[[Tensor, Tensor], Tensor]:
        """The cost as a differentiable function of expected widths and groups, [axes] each to [] in float64.

        It is exact in expectation for axes that are decided independently and do not meet themselves.
        """
        linear, grouped, quadratic = (
            torch.as_tensor(coefficients, dtype=torch.float64, device=device)
            for coefficients in (self.linear, self.grouped, self.quadratic)
        )

        def cost(widths: Tensor, groups: Tensor) -> Tensor:
            w = widths.double()
            return self.constant + linear @ w + grouped @ groups.double() + w @ quadratic @ w

        return cost


def cost_of(model: nn.Module, axes: Sequence[Axis], metric: Metric = "macs") -> Cost:
    """The cost of a model as a function of its axes' sizes.

    Multiply-accumulates are those of matrix products and convolutions for one image, half of what
    `torch.utils.flop_counter` counts; norms, biases and softmax are not counted, as there. OFB's published totals
    count those too, and leave the class token out: that is "reference_macs".

    Args:
        model: A timm model.
        axes: Its axes, at its present sizes.
        metric: "macs", "params" or "reference_macs".

    Raises:
        InputError: A tensor lies along axes in a way that no cost can follow, or OFB has no formula for the model.
    """
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    names = tuple(axis.name for axis in axes)
    constant, linear = 0, np.zeros(len(axes), dtype=np.int64)
    grouped, quadratic = np.zeros_like(linear), np.zeros((len(axes), len(axes)), dtype=np.int64)
    if metric == "params":
        uses = Counter(dict.fromkeys(shapes, 1))
    elif metric == "macs":
        uses, constant = _uses(model)
        linear += np.array([axis.products for axis in axes], dtype=np.int64)
    else:
        uses, per_unit, per_group = reference_counts(model)
        linear += np.array([per_unit[axis.name] for axis in axes], dtype=np.int64)
        grouped += np.array([per_group[axis.name] for axis in axes], dtype=np.int64)
    bound = defaultdict[tuple[str, int], list[tuple[int, Binding]]](list)
    for index, axis in enumerate(axes):
        for binding in axis.bindings:
            bound[binding.tensor, binding.dim % len(shapes.get(binding.tensor, (1,)))].append((index, binding))
    for name, shape in shapes.items():
        factor, along, groups = uses[name], list[int](), list[int]()
        for dim, length in enumerate(shape):
            for index, binding in bound[name, dim]:
                (groups if binding.per_group else along).append(index)
            factor *= bound[name, dim][0][1].copies if bound[name, dim] else length
        match len(along), len(groups):
            case 0, 0:
                constant += factor
            case 1, 0:
                linear[along[0]] += factor
            case 0, 1:
                grouped[groups[0]] += factor
            case 2, 0:
                quadratic[min(along), max(along)] += factor
            case _:
                raise InputError(f"{name} lies along {len(along) + len(groups)} axes in a way a cost cannot follow")
    return Cost(names, constant, linear, grouped, quadratic)


def sizes_of(axes: Sequence[Axis]) -> list[tuple[int, int]]:
    """Present sizes, for `Cost.of`."""
    return [axis.size for axis in axes]


def least_sizes(axes: Sequence[Axis]) -> list[tuple[int, int]]:
    """Sizes at the smallest options, for `Cost.of`."""
    return [(axis.options[0][0], axis.options[1][0]) for axis in axes]


class _CountUses(TorchFunctionMode):
    """Counts how often per image each weight is applied in linear layers and convolutions."""

    def __init__(self, names: dict[int, str]) -> None:
        super().__init__()
        self.names = names
        self.uses: Counter[str] = Counter()
        self.rest = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is nn.functional.linear:
            self._count(args, kwargs, out.numel() // out.shape[-1])
        elif func in (torch.conv2d, nn.functional.conv2d):
            self._count(args, kwargs, out.shape[-2] * out.shape[-1])
        return out

    def _count(self, args: tuple[Any, ...], kwargs: dict[str, Any] | None, times: int) -> None:
        weight = kwargs["weight"] if kwargs and "weight" in kwargs else args[1]
        if (name := self.names.get(id(weight))) is not None:
            self.uses[name] += times
        else:  # a weight made of another, as a backbone's standardised ones are
            self.rest += weight.numel() * times


def _uses(model: nn.Module) -> tuple[Counter[str], int]:
    """Applications of each weight per image, found by one forward pass on the meta device, and what others cost."""
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    meta = {name: tensor.detach().to("meta") for name, tensor in tensors.items()}
    counter = _CountUses({id(tensor): name for name, tensor in meta.items()})
    training = model.training
    model.eval()
    size = input_size(model)
    try:
        with counter, torch.no_grad():
            torch.func.functional_call(model, meta, (torch.empty(1, *size, device="meta"),))
    except (RuntimeError, ValueError, AssertionError, TypeError, LookupError, ArithmeticError) as error:
        raise InputError(f"{type(model).__name__} does not run on images of {size}: {error}") from None
    finally:
        model.train(training)
    return counter.uses, counter.rest

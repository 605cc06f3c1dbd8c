"""How often each weight of a model is applied to one image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ofbnas.errors import InputError, one_line
from ofbnas.models.axes import input_size

# What models raise in their forward pass when their arguments do not fit images of their own size.
_ERRORS = (
    RuntimeError, ValueError, AssertionError, TypeError, LookupError, ArithmeticError,
)  # fmt: skip


class CountUses(TorchFunctionMode):
    """Counts how often per image each weight is applied in linear layers and convolutions.

    A function mode sees each call of torch's functions inside its `with` block. A linear layer
    applies each of its weights once for each token, a convolution once for each place of its
    output.

    Attributes:
        uses: Applications by the weight's name.
        rest: Multiply-accumulates of weights that have no name.
    """

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
        if kwargs is None:
            kwargs = {}
        out = func(*args, **kwargs)
        if func is nn.functional.linear:
            tokens = out.numel() // out.shape[-1]
            self._count(_weight_of(args, kwargs), tokens)
        elif func in (torch.conv2d, nn.functional.conv2d):
            places = out.shape[-2] * out.shape[-1]
            self._count(_weight_of(args, kwargs), places)
        return out

    def _count(self, weight: Tensor, times: int) -> None:
        """Count that each element of a weight was applied so many times."""
        name = self.names.get(id(weight))
        if name is not None:
            self.uses[name] += times
        else:  # a weight made of another, as a backbone's standardised ones are
            self.rest += weight.numel() * times


def _weight_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The weight among the arguments of a linear layer or a convolution."""
    weight: Tensor = kwargs["weight"] if "weight" in kwargs else args[1]
    return weight


def count_uses(model: nn.Module) -> CountUses:
    """Applications of each weight per image, and what weights without a name cost.

    They are counted in one forward pass on the meta device, which computes shapes only.

    Raises:
        InputError: The model does not run on images of its own size.
    """
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    meta: dict[str, Tensor] = {}
    names: dict[int, str] = {}
    for name, tensor in tensors.items():
        meta[name] = tensor.detach().to("meta")
        names[id(meta[name])] = name
    counter = CountUses(names)
    size = input_size(model)
    image = torch.empty(1, *size, device="meta")
    was_training = model.training
    model.eval()
    try:
        with counter, torch.no_grad():
            torch.func.functional_call(model, meta, (image,))
    except _ERRORS as error:
        raise InputError(
            f"{type(model).__name__} does not run on images of {size}: {one_line(error)}"
        ) from None
    finally:
        model.train(was_training)
    return counter

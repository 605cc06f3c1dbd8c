"""timm's models, made from a name and arguments that may come from a stranger.

No other module makes models from such arguments. A few bytes can ask for a model of any size, so it
is made in three steps, each of which is bounded before it begins:

1. `check_kwargs` bounds what the arguments ask for: no files, no huge numbers, not too many blocks.
2. `on_meta` makes the model on torch's meta device, where tensors have shapes and no memory. Names,
   shapes and bytes of all tensors are then known, and checked, before anything is allocated.
3. `create_parent` makes it for real, with fresh weights, or `MetaModel.hollow` with real buffers
   but without memory for parameters, which a file of weights then fills.

`interception` has the hooks that count what a model takes, and that leave its parameters empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psutil
import timm
import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from ofbnas.errors import InputError, one_line
from ofbnas.files.untrusted import visible
from ofbnas.models.interception import (
    CountBytes,
    CountModules,
    SkipWritesToHollow,
    emptied,
    in_this_thread,
)

# What a description from a stranger may ask for.
NOT_FOR_KWARGS = ("checkpoint_path", "cache_dir", "scriptable", "exportable", "no_jit", "device")
MAX_NUMBER = 65_536
MAX_ITEMS = 64
MAX_DEPTH = 4
# A thousand blocks cost minutes, also where they cost no memory. The deepest of timm's models has
# 64 blocks, and the one with the most modules has 1,291 of them.
BLOCKS = ("depth", "depths", "depth_token_only", "stages", "layers", "num_layers")  # count blocks
MAX_BLOCKS = 128
MAX_MODULES = 4_096
MAX_PARAMETERS = 20_000_000_000

# What models raise in their constructors for arguments that they cannot be built with.
_ERRORS = (
    TypeError, ValueError, AssertionError, RuntimeError, ArithmeticError, LookupError,
    AttributeError, NameError, OSError, MemoryError,
)  # fmt: skip


@dataclass(frozen=True)
class MetaModel:
    """A model on the meta device, and what it takes to make it for real.

    Attributes:
        name: timm's name of the model.
        kwargs: The arguments it was made with.
        model: The model; all of its tensors are on the meta device.
        work: Bytes of all tensors that making it for real writes beside its parameters: its
            buffers, whatever they are computed from, and the largest parameter, as `hollow` frees
            each parameter before the next is made.
    """

    name: str
    kwargs: Mapping[str, Any]
    model: nn.Module
    work: int

    def check_work(self, most: int) -> None:
        """Check that making the model for real takes at most so many bytes beside its parameters.

        Raises:
            InputError: It takes more.
        """
        if self.work > most:
            raise InputError(
                f"model {_described(self.name, self.kwargs)} takes {self.work:,} bytes beside its "
                f"weights; expected at most {most:,}"
            )

    def hollow(self) -> nn.Module:
        """The model made for real, but with parameters that have shapes and no memory.

        The caller replaces them. Buffers that no file of weights has, such as tables of relative
        positions, get the values that they have in any model that timm makes.
        """
        # The hook empties each parameter as soon as a module gets it. Initial values are written
        # afterwards, which would fail, as all elements of a hollow parameter share one place in
        # memory: the dispatch mode skips these writes.
        empty = in_this_thread(emptied)
        empty_parameters = register_module_parameter_registration_hook(empty)
        with empty_parameters, SkipWritesToHollow():
            return _make(self.name, self.kwargs)


def on_meta(name: str, kwargs: Mapping[str, Any]) -> MetaModel:
    """timm's model on the meta device.

    Nothing is allocated, and what a stranger can ask for takes seconds at most.

    Raises:
        InputError: timm has no such model or does not take the arguments, or they name files or
            absurd sizes.
    """
    _check_known(name)
    check_kwargs(kwargs)
    counted = CountBytes()
    count_modules = in_this_thread(CountModules(MAX_MODULES))
    limit_modules = register_module_module_registration_hook(count_modules)
    with limit_modules, torch.device("meta"), counted:
        model = _make(name, kwargs)

    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    if num_parameters > MAX_PARAMETERS:
        raise InputError(
            f"a model with {num_parameters:,} parameters; expected at most {MAX_PARAMETERS:,}"
        )
    parameter_bytes = [parameter.nbytes for parameter in model.parameters()]
    besides_parameters = counted.bytes - sum(parameter_bytes)
    largest_parameter = max(parameter_bytes, default=0)
    return MetaModel(
        name,
        kwargs,
        model,
        work=besides_parameters + largest_parameter,
    )


def _check_known(name: str) -> None:
    """Check that timm has a model.

    Raises:
        InputError: It does not.
    """
    if timm.is_model(name):
        return
    first_word = name.split("_")[0][:40]
    near = timm.list_models(f"*{first_word}*")[:4]
    hint = "timm.list_models() has all"
    if near:
        hint = f"did you mean {', '.join(near)}?"
    raise InputError(f"model {visible(name[:80])} is unknown to timm {timm.__version__}; {hint}")


def create_parent(name: str, kwargs: Mapping[str, Any]) -> nn.Module:
    """timm's model with fresh weights.

    Raises:
        InputError: As `on_meta`, or this machine has too little memory for it.
    """
    meta = on_meta(name, kwargs)
    parameter_bytes = sum(parameter.nbytes for parameter in meta.model.parameters())
    needed = meta.work + parameter_bytes
    memory = psutil.virtual_memory().total
    if needed > memory:
        raise InputError(
            f"model {_described(name, kwargs)} takes {needed / 1e9:,.3g} GB, "
            f"this machine has {memory / 1e9:,.3g} GB"
        )
    return _make(name, kwargs)


def check_kwargs(kwargs: Mapping[str, Any]) -> None:
    """Check arguments for timm.create_model that may come from a stranger.

    Raises:
        InputError: They name files, weights or devices, or have numbers or lists beyond any
            model's.
    """
    forbidden: list[str] = []
    for key in kwargs:
        if key in NOT_FOR_KWARGS or key.startswith("pretrained"):
            forbidden.append(key)
    if forbidden:
        raise InputError(
            f"a model's arguments have {min(forbidden)}, but devices and weights are not theirs to "
            "name: use model.checkpoint"
        )
    for key, value in kwargs.items():
        # Not `any(... > MAX_NUMBER ...)`: a comparison with NaN is false.
        in_range = all(abs(number) <= MAX_NUMBER for number in _numbers(value))
        if not in_range:
            raise InputError(
                f"a model's argument {visible(key)[:80]} has a number beyond {MAX_NUMBER:,}"
            )

    blocks: dict[str, float] = {}
    for key in BLOCKS:
        if key in kwargs:
            blocks[key] = sum(_numbers(kwargs[key]))
    if sum(blocks.values()) > MAX_BLOCKS:
        asking = " + ".join(blocks)
        raise InputError(f"a model's {asking} asks for more than {MAX_BLOCKS} blocks")


def _numbers(value: Any, depth: int = 0) -> list[float]:
    """All numbers in a JSON value.

    >>> _numbers({"depths": [2, 6], "window": {"size": 7}, "norm": "layer", "bias": True})
    [2, 6, 7]
    """
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        if len(value) > MAX_ITEMS or depth > MAX_DEPTH:
            raise InputError(
                f"a model's arguments have a list of {len(value)} values, or too deep ones"
            )
        numbers: list[float] = []
        for item in value:
            numbers += _numbers(item, depth + 1)
        return numbers
    if isinstance(value, bool) or not isinstance(value, int | float):
        return []
    return [value]


def _make(name: str, kwargs: Mapping[str, Any]) -> nn.Module:
    """timm's model, on the device of the context.

    Raises:
        InputError: timm does not take the arguments.
    """
    try:
        model: nn.Module = timm.create_model(name, pretrained=False, **kwargs)
    except _ERRORS as error:
        raise InputError(
            f"timm cannot make {_described(name, kwargs)}: {one_line(error)}"
        ) from None
    return model


def _described(name: str, kwargs: Mapping[str, Any]) -> str:
    return f"{name} with {one_line(dict(kwargs))}"

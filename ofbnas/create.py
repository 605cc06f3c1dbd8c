"""timm's models, made from a name and arguments that may come from a stranger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
from torch import nn

from ofbnas.errors import InputError

# What a description from a stranger may ask for.
NOT_FOR_KWARGS = ("checkpoint_path", "cache_dir", "scriptable", "exportable", "no_jit")
MAX_NUMBER = 65_536
MAX_ITEMS = 64
MAX_DEPTH = 4
MAX_BLOCKS = 1_000
MAX_PARAMETERS = 20_000_000_000


def create_parent(model: str, kwargs: Mapping[str, Any]) -> nn.Module:
    """timm's model with fresh weights.

    Raises:
        InputError: timm knows no such model, or does not take the arguments, or they ask for files or absurd sizes.
    """
    if not timm.is_model(model):
        near = timm.list_models(f"*{model.split('_')[0][:40]}*")[:4]
        hint = f"did you mean {', '.join(near)}?" if near else "timm.list_models() has all"
        raise InputError(f"model {model[:80]} is unknown to timm {timm.__version__}; {hint}")
    check_kwargs(kwargs)
    try:
        made: nn.Module = timm.create_model(model, pretrained=False, **kwargs)
    except (TypeError, ValueError, AssertionError, RuntimeError, ArithmeticError, LookupError, AttributeError) as error:
        raise InputError(f"timm cannot make {model} with {dict(kwargs)}: {error}") from None
    return made


def check_kwargs(kwargs: Mapping[str, Any]) -> None:
    """Check arguments for timm.create_model that may come from a stranger.

    Raises:
        InputError: They name files or weights, or have numbers or lists beyond any model's.
    """
    if odd := sorted(key for key in kwargs if key in NOT_FOR_KWARGS or key.startswith("pretrained")):
        raise InputError(f"a model's arguments have {odd[0]}, but weights are not theirs to name: use model.checkpoint")
    for key, value in kwargs.items():
        values = _numbers(value)
        if any(abs(number) > MAX_NUMBER for number in values):
            raise InputError(f"a model's argument {key} has a number beyond {MAX_NUMBER:,}")
        if key in ("depth", "depths", "stages") and sum(values) > MAX_BLOCKS:
            raise InputError(f"a model's argument {key} asks for more than {MAX_BLOCKS} blocks")


def _numbers(value: Any, depth: int = 0) -> list[float]:
    """All numbers in a JSON value."""
    if isinstance(value, Mapping):
        value = [*value.values()]
    if isinstance(value, list | tuple):
        if len(value) > MAX_ITEMS or depth > MAX_DEPTH:
            raise InputError(f"a model's arguments have a list of {len(value)} values, or too deep ones")
        return [number for item in value for number in _numbers(item, depth + 1)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


def check_parameters(model: nn.Module) -> None:
    """Check, before anything is allocated, that a model on the meta device is not absurdly large.

    Raises:
        InputError: It is.
    """
    if (count := sum(parameter.numel() for parameter in model.parameters())) > MAX_PARAMETERS:
        raise InputError(f"a model with {count:,} parameters; expected at most {MAX_PARAMETERS:,}")

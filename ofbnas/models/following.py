"""A user's own optimizer follows a shrink: it goes on with the new parameters, and keeps its state."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from ofbnas.errors import InputError
from ofbnas.models.moments import MOMENTS, Shrink

Optimizer = torch.optim.Optimizer


def raw(optimizer: Optimizer) -> Optimizer:
    """The optimizer inside of a wrapper such as Accelerate's or Lightning's."""
    inner = getattr(optimizer, "optimizer", None)
    return raw(inner) if isinstance(inner, Optimizer) else optimizer


def check_follows(optimizer: Optimizer, parameters: Collection[nn.Parameter]) -> None:
    """Check that an optimizer's state can follow a shrink, before it has any.

    A copy of it makes a step with copies of some parameters, one for each number of dimensions:
    what it keeps for these, it will keep for all.

    Args:
        optimizer: The optimizer.
        parameters: Those of the model.

    Raises:
        InputError: It holds none of them, or keeps what does not have its parameter's shape.
    """
    own = set(parameters)
    tried = copy.copy(optimizer)
    tried.param_groups = []
    tried.state = defaultdict(dict)
    for group in optimizer.param_groups:
        # By the number of dimensions, the largest: some optimizers factor large matrices only.
        chosen: dict[int, Tensor] = {}
        for held in sorted(own & set(group["params"]), key=torch.numel):
            chosen[held.ndim] = held
        copies = [nn.Parameter(held.detach().clone()) for held in chosen.values()]
        for tried_on in copies:
            tried_on.grad = torch.full_like(tried_on, 1e-3)
        if copies:
            tried.param_groups.append(copy.deepcopy(group | {"params": []}) | {"params": copies})
    if not tried.param_groups:
        raise InputError(
            f"the {type(optimizer).__name__} holds no parameter of the searched model: make it of "
            "model.parameters(), where model is the SearchRun's"
        )
    tried.step()
    for parameter, state in tried.state.items():
        _check_state(optimizer, parameter, state)


def follow_(optimizer: Optimizer, shrink: Shrink) -> None:
    """Let an optimizer go on with the parameters after a shrink.

    It stays the same object with the same groups, so learning rates and their schedule stay, too.
    State of units that were kept is carried over exactly, except that moments of queries are
    rescaled with them where heads get narrower. What is not the model's is not touched.

    Args:
        optimizer: An optimizer, changed in place; `check_follows` has accepted it.
        shrink: What happened to the parameters.
    """
    names = {parameter: name for name, parameter in shrink.before.items()}
    states: dict[str, dict[str, Any]] = {}
    for group in optimizer.param_groups:
        followed: list[nn.Parameter] = []
        for parameter in group["params"]:
            name = names.get(parameter)
            if name is None:
                followed.append(parameter)
                continue
            state = optimizer.state.pop(parameter, None)
            if name in shrink.after:
                followed.append(shrink.after[name])
                if state and not shrink.restarts:
                    _check_state(optimizer, parameter, state)
                    states[name] = state
        group["params"][:] = followed

    by_kind: dict[str, dict[str, Tensor]] = {}
    for name, state in states.items():
        for kind, value in state.items():
            if not _is_scalar(value):
                by_kind.setdefault(kind, {})[name] = value
    for kind, tensors in by_kind.items():
        for name, tensor in shrink.carried(tensors, MOMENTS[kind]).items():
            states[name][kind] = tensor.clone()
    for name, state in states.items():
        optimizer.state[shrink.after[name]] = state


def _is_scalar(value: Any) -> bool:
    """Whether a value is a count or the like, which a shrink leaves as it is."""
    if isinstance(value, Tensor):
        return value.ndim == 0
    return value is None or isinstance(value, bool | int | float)


def _check_state(optimizer: Optimizer, parameter: Tensor, state: dict[str, Any]) -> None:
    """Check that the state of a parameter can be carried over.

    Raises:
        InputError: It cannot.
    """
    for kind, value in state.items():
        if _is_scalar(value):
            continue
        fits = isinstance(value, Tensor) and value.shape == parameter.shape
        if not fits or not MOMENTS.get(kind):
            raise InputError(
                f"{type(optimizer).__name__} keeps {kind}, which cannot follow its parameters when "
                "units are removed; SGD, Adam, AdamW, NAdam, RAdam, Lion, LAMB, LARS, Adan and Muon "
                "can"
            )

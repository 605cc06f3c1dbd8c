"""An optimizer's moments by parameters' names, so that another optimizer can carry them on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ofbnas.models.axes import Axis
from ofbnas.models.shrink import Kept, names_left, take

Moments = Mapping[str, Mapping[str, Tensor]]

# How each kind of state scales with a parameter, as a power of it. Where a parameter w is replaced
# by c w, its gradient is divided by c, and the squared gradient by c^2. Counts of steps stay.
MOMENTS = {
    "exp_avg": -1,
    "exp_avg_sq": -2,
    "momentum_buffer": -1,
    "step": 0,
    "group_step": 0,
}


def moments(
    optimizers: Iterable[torch.optim.Optimizer],
    parameters: Mapping[str, nn.Parameter],
) -> dict[str, dict[str, Tensor]]:
    """Moments and step counts by kind ("exp_avg", "exp_avg_sq", "step"), then by parameter's name.

    Args:
        optimizers: Their parameters must all be in `parameters`.
        parameters: Parameters by name.
    """
    names = {parameter: name for name, parameter in parameters.items()}
    by_kind: dict[str, dict[str, Tensor]] = {}
    for optimizer, group, parameter in _optimized(optimizers):
        state = dict(optimizer.state.get(parameter, {}))
        if "step" in group:  # some of timm's optimizers count there
            state["group_step"] = group["step"]
        for kind, value in state.items():
            if value is not None:
                by_name = by_kind.setdefault(kind, {})
                by_name[names[parameter]] = torch.as_tensor(value)
    return by_kind


def shrunk_moments(
    held: Moments,
    axes: Sequence[Axis],
    kept: Kept,
) -> dict[str, dict[str, Tensor]]:
    """What is left of `moments` when only some units of the axes are kept."""
    shrunk: dict[str, dict[str, Tensor]] = {}
    for kind, tensors in held.items():
        power = MOMENTS[kind]
        if power == 0:
            # Counts of steps do not have the shapes of parameters: there is nothing to remove.
            shrunk[kind] = {name: tensors[name] for name in names_left(tensors, axes, kept)}
        else:
            shrunk[kind] = take(tensors, axes, kept, power)
    return shrunk


def load_moments(
    optimizers: Iterable[torch.optim.Optimizer],
    parameters: Mapping[str, nn.Parameter],
    held: Moments,
) -> None:
    """Give optimizers the state that `moments` returned; names they do not hold are ignored."""
    names = {parameter: name for name, parameter in parameters.items()}
    for optimizer, group, parameter in _optimized(optimizers):
        name = names[parameter]
        state: dict[str, Tensor] = {}
        for kind, tensors in held.items():
            if name in tensors:
                state[kind] = tensors[name].clone()
        group_step = state.pop("group_step", None)
        if group_step is not None:
            group["step"] = group_step.cpu()
        if state:
            optimizer.state[parameter] = state


def _optimized(
    optimizers: Iterable[torch.optim.Optimizer],
) -> Iterator[tuple[torch.optim.Optimizer, dict[str, Any], nn.Parameter]]:
    """Every parameter with its optimizer and its group."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                yield optimizer, group, parameter

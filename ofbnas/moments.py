"""An optimizer's memory by parameters' names, so that it can follow a parameter into another optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ofbnas.axes import Axis
from ofbnas.shrink import Kept, take

# How each kind scales with a parameter, as powers of it: gradients grow as a parameter shrinks. Counts do not.
MOMENTS = {"exp_avg": -1, "exp_avg_sq": -2, "momentum_buffer": -1, "step": 0, "group_step": 0}


def moments(
    optimizers: Iterable[torch.optim.Optimizer], parameters: Mapping[str, nn.Parameter]
) -> dict[str, dict[str, Tensor]]:
    """Moments and step counts by kind ("exp_avg", "exp_avg_sq", "step"), then by the parameter's name."""
    names = {parameter: name for name, parameter in parameters.items()}
    found: dict[str, dict[str, Tensor]] = {}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                held = dict(optimizer.state.get(parameter, {}))
                if "step" in group:  # some of timm's optimizers count there
                    held["group_step"] = group["step"]
                for kind, value in held.items():
                    if value is not None:
                        found.setdefault(kind, {})[names[parameter]] = torch.as_tensor(value)
    return found


def shrunk_moments(
    held: Mapping[str, Mapping[str, Tensor]], axes: Sequence[Axis], kept: Kept
) -> dict[str, dict[str, Tensor]]:
    """What is left of `moments` when only some units of the axes are kept."""
    return {
        kind: take(tensors, axes, kept, MOMENTS[kind]) if MOMENTS[kind] else dict(tensors)
        for kind, tensors in held.items()
    }


def load_moments(
    optimizers: Iterable[torch.optim.Optimizer],
    parameters: Mapping[str, nn.Parameter],
    state: Mapping[str, Mapping[str, Tensor]],
) -> None:
    """Give optimizers the state that `moments` found; names they do not hold are passed over."""
    names = {parameter: name for name, parameter in parameters.items()}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                name = names[parameter]
                held = {kind: tensors[name].clone() for kind, tensors in state.items() if name in tensors}
                if (count := held.pop("group_step", None)) is not None:
                    group["step"] = count.cpu()
                if held:
                    optimizer.state[parameter] = held

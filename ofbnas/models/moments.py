"""An optimizer's moments by parameters' names, so that another optimizer can carry them on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
    "exp_avg_diff": -1,
    "exp_inf": -1,
    "grad_avg": -1,
    "momentum_buffer": -1,
    "neg_pre_grad": -1,
    "exp_avg_sq": -2,
    "exp_avg_diff_sq": -2,
    "max_exp_avg_sq": -2,
    "square_avg": -2,
    "sum": -2,
    "step": 0,
    "group_step": 0,
    "mu_product": 0,
}


@dataclass(frozen=True)
class Shrink:
    """What a shrink did to the parameters of a model.

    Attributes:
        before: The parameters that are gone, by timm's names.
        after: Those in their places; of branches that are gone there are none.
        restarts: Whether the new ones hold other weights, so that nothing which belonged to the old
            ones goes along.
        axes: The axes before the shrink.
        kept: The units that each axis keeps, of those that lost some.
        gains: By what tensors were multiplied, if anything, by name.
    """

    before: Mapping[str, nn.Parameter]
    after: Mapping[str, nn.Parameter]
    restarts: bool = False
    axes: Sequence[Axis] = field(default=(), repr=False)
    kept: Kept = field(default_factory=dict, repr=False)
    gains: Mapping[str, Tensor] | None = field(default=None, repr=False)

    def carried(self, tensors: Mapping[str, Tensor], power: int = 1) -> dict[str, Tensor]:
        """What is left of tensors that belong to parameters: that of the units that were kept.

        Args:
            tensors: By parameters' names, each with the shape of its parameter before.
            power: How they scale with the parameters: 1 for averages of weights, -1 for means of
                gradients, -2 for means of squared gradients, 0 for what does not have the
                parameters' shapes, and stays.

        Returns:
            Detached tensors, for `after`; none if the training restarts.
        """
        if self.restarts:
            return {}
        if power == 0:
            return {name: tensors[name] for name in names_left(tensors, self.axes, self.kept)}
        left = take(tensors, self.axes, self.kept, power)
        if self.gains is None:
            return left
        return {name: tensor * self.gains[name] ** power for name, tensor in left.items()}

    def moments(self, held: Moments) -> dict[str, dict[str, Tensor]]:
        """What is left of `moments`."""
        return {kind: self.carried(tensors, MOMENTS[kind]) for kind, tensors in held.items()}


def moments(
    optimizers: Iterable[torch.optim.Optimizer],
    parameters: Mapping[str, nn.Parameter],
) -> dict[str, dict[str, Tensor]]:
    """Moments and step counts by kind ("exp_avg", "exp_avg_sq", "step"), then by parameter's name.

    Args:
        optimizers: What they hold besides `parameters` is passed over.
        parameters: Parameters by name.
    """
    by_kind: dict[str, dict[str, Tensor]] = {}
    for optimizer, group, name, parameter in _optimized(optimizers, parameters):
        state = dict(optimizer.state.get(parameter, {}))
        if "step" in group:  # some of timm's optimizers count there
            state["group_step"] = group["step"]
        for kind, value in state.items():
            if value is not None:
                by_name = by_kind.setdefault(kind, {})
                by_name[name] = torch.as_tensor(value)
    return by_kind


def load_moments(
    optimizers: Iterable[torch.optim.Optimizer],
    parameters: Mapping[str, nn.Parameter],
    held: Moments,
) -> None:
    """Give optimizers the state that `moments` returned; names they do not hold are ignored."""
    for optimizer, group, name, parameter in _optimized(optimizers, parameters):
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
    parameters: Mapping[str, nn.Parameter],
) -> Iterator[tuple[torch.optim.Optimizer, dict[str, Any], str, nn.Parameter]]:
    """Each of the parameters that an optimizer holds, with that, its group, and its name."""
    names = {parameter: name for name, parameter in parameters.items()}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter in names:
                    yield optimizer, group, names[parameter], parameter

"""How much each unit of a trained model matters, to start importance from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from ofbnas import parallel
from ofbnas.axes import Axis, Binding, all_bindings


def taylor(model: nn.Module, axes: Sequence[Axis], batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """First-order Taylor saliency: how much the loss would change, to first order, if a unit were masked out.

    That is the gradient of the loss along the unit's own mask, the sum of gradient times weight over all slices the
    bi-mask would scale; squared, and averaged over batches (Molchanov et al., 2019, arXiv 1906.10771).

    Args:
        model: In any mode, which is kept; its gradients are left as they were.
        axes: Its axes.
        batches: Images [batch, channels, height, width] and labels [batch].

    Returns:
        Axis name to saliency, [units].
    """
    found = {axis.name: torch.zeros(axis.units, device=_device(model)) for axis in axes}
    parameters = dict(model.named_parameters())
    masked = [(axis, binding) for axis, binding in all_bindings(axes) if binding.masked]
    tensors = {binding.tensor: parameters[binding.tensor] for _, binding in masked}
    training = model.training
    model.eval()
    for images, labels in batches:
        loss = nn.functional.cross_entropy(model(images), labels)
        gradients = dict(zip(tensors, torch.autograd.grad(loss, list(tensors.values())), strict=True))
        along = {name: torch.zeros_like(zeros) for name, zeros in found.items()}
        for axis, binding in masked:
            product = gradients[binding.tensor] * tensors[binding.tensor].detach()
            along[axis.name] += _per_unit(product, binding)
        parallel.average_(along.values())
        for name, derivative in along.items():
            found[name] += derivative.square()
    model.train(training)
    return found


def magnitude(model: nn.Module, axes: Sequence[Axis]) -> dict[str, Tensor]:
    """The sum of squared weights in all slices that would go with a unit, [units] for each axis' name."""
    found = {axis.name: torch.zeros(axis.units, device=_device(model)) for axis in axes}
    parameters = dict(model.named_parameters())
    for axis, binding in all_bindings(axes):
        if not binding.per_group and binding.tensor in parameters:  # a buffer has no weights
            found[axis.name] += _per_unit(parameters[binding.tensor].detach().square(), binding)
    return found


def normal_scores(saliency: Tensor) -> Tensor:
    """The standard normal distribution's quantiles in the order of the saliency, [units]: ranks without a scale."""
    count = saliency.numel()
    ranks = saliency.argsort(stable=True).argsort()
    scores: Tensor = torch.special.ndtri((ranks + 0.5) / count)
    return scores


def _per_unit(tensor: Tensor, binding: Binding) -> Tensor:
    """Sums over everything but the units a binding lays along one of the tensor's dimensions, [units]."""
    units_first = tensor.movedim(binding.dim, 0).flatten(1) if tensor.ndim > 1 else tensor[:, None]
    return units_first.sum(1).view(binding.copies, -1).sum(0)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device

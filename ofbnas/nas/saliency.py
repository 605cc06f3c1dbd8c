"""How much each unit of a trained model matters: where importance may start."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from ofbnas import parallel
from ofbnas.models.axes import Axis, Binding, Size, all_bindings


def taylor(
    model: nn.Module,
    axes: Sequence[Axis],
    batches: Iterable[tuple[Tensor, Tensor]],
    loss_of: Callable[[Tensor, Tensor], Tensor] = nn.functional.cross_entropy,
) -> dict[str, Tensor]:
    """First-order Taylor saliency: how much the loss would change if a unit were masked out.

    With m the mask of a unit, 1 in the trained model, masking it out changes the loss L to first
    order by -dL/dm. As m multiplies weights, dL/dm is the sum of gradient times weight over all
    slices that the bi-mask would scale. The saliency is its square, averaged over batches
    (Molchanov et al., 2019, arXiv 1906.10771).

    Args:
        model: The trained model; its mode and its gradients stay as they are.
        axes: The model's axes.
        batches: Images [batch, channels, height, width] and labels [batch].
        loss_of: The loss of outputs and labels, [].

    Returns:
        Axis name to saliency, [units].
    """
    saliency = _zeros(model, axes)
    parameters = dict(model.named_parameters())
    masked: list[tuple[Axis, Binding]] = []
    tensors: dict[str, Tensor] = {}
    for axis, binding in all_bindings(axes):
        if binding.masked:
            masked.append((axis, binding))
            tensors[binding.tensor] = parameters[binding.tensor]

    was_training = model.training
    model.eval()
    for images, labels in batches:
        outputs = model(images)
        loss = loss_of(outputs, labels)
        # autograd.grad, unlike backward(), leaves the parameters' own gradients alone.
        grads = torch.autograd.grad(loss, list(tensors.values()))
        gradients = dict(zip(tensors, grads, strict=True))

        slopes = _zeros(model, axes)  # dL/dm
        for axis, binding in masked:
            weight = tensors[binding.tensor].detach()
            product = gradients[binding.tensor] * weight
            slopes[axis.name] += _per_unit(product, binding)
        # Averaged before they are squared: the loss is the mean over the images of all processes.
        parallel.average_(slopes.values())
        for name, slope in slopes.items():
            saliency[name] += slope.square()
    model.train(was_training)
    return saliency


def magnitude(model: nn.Module, axes: Sequence[Axis]) -> dict[str, Tensor]:
    """The sum of squared weights in all slices that would go with a unit.

    Returns:
        Axis name to sum, [units].
    """
    sums = _zeros(model, axes)
    parameters = dict(model.named_parameters())
    for axis, binding in all_bindings(axes):
        is_buffer = binding.tensor not in parameters
        if binding.per_group or is_buffer:
            continue
        squares = parameters[binding.tensor].detach().square()
        sums[axis.name] += _per_unit(squares, binding)
    return sums


def best_units(saliency: Tensor, size: Size, kept: Size) -> Tensor:
    """The units to keep: in each group those of the highest saliency, and of groups likewise.

    A group counts as much as the units of it that would be kept.

    Args:
        saliency: [units].
        size: Present size of the axis, (groups, channels).
        kept: Size to keep.

    Returns:
        Flat indices in ascending order, [groups, channels].

    >>> best_units(torch.tensor([9.0, 0.0, 4.0, 6.0]), size=(2, 2), kept=(1, 2)).tolist()
    [[2, 3]]
    >>> best_units(torch.tensor([9.0, 0.0, 4.0, 6.0]), size=(2, 2), kept=(1, 1)).tolist()
    [[0]]
    """
    num_groups, num_channels = kept
    best = saliency.view(size).topk(num_channels, dim=1)
    groups = best.values.sum(1).topk(num_groups).indices.sort().values
    channels = best.indices[groups].sort(1).values
    return groups[:, None] * size[1] + channels


def normal_scores(saliency: Tensor) -> Tensor:
    """Quantiles of the standard normal distribution in the order of the saliency, [units].

    Saliencies of different axes have different scales; their ranks have none.

    >>> [round(score, 2) for score in normal_scores(torch.tensor([30.0, 0.1, 2.0])).tolist()]
    [0.97, -0.97, 0.0]
    """
    count = saliency.numel()
    ranks = saliency.argsort(stable=True).argsort()
    # Half a rank away from both ends, where the quantiles are infinite.
    shares = (ranks + 0.5) / count
    scores: Tensor = torch.special.ndtri(shares)
    return scores


def _zeros(model: nn.Module, axes: Sequence[Axis]) -> dict[str, Tensor]:
    """Axis name to zeros, [units]."""
    device = next(model.parameters()).device
    return {axis.name: torch.zeros(axis.units, device=device) for axis in axes}


def _per_unit(tensor: Tensor, binding: Binding) -> Tensor:
    """Sums over all but the units that a binding lays along a dimension of the tensor, [units]."""
    slices = tensor
    if tensor.ndim > 1:
        rows = tensor.movedim(binding.dim, 0).flatten(1)
        slices = rows.sum(1)
    by_copy = slices.view(binding.copies, -1)  # [copies, units]
    return by_copy.sum(0)

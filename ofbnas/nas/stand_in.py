"""What an option would cost after compensation, without a forward pass for each: units stand in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ofbnas import parallel
from ofbnas.models.axes import Axis
from ofbnas.models.shrink import kept_slices
from ofbnas.nas.readers import find_readers, hooked
from ofbnas.nas.regression import rows_of, solution


@torch.no_grad()
def input_moments(
    model: nn.Module, axes: Sequence[Axis], images: Iterable[Tensor]
) -> dict[str, Tensor]:
    """Second moments of the inputs of each layer that `compensate_` would solve.

    Args:
        model: In evaluation mode.
        axes: Its axes.
        images: Batches [batch, channels, height, width].

    Returns:
        Layer to sum a a', [inputs, inputs], with a 1 behind the inputs if it has a bias, in the order
        of the forward pass.
    """
    images = list(images)
    moments: dict[str, Tensor] = {}

    def add(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, args: tuple[Tensor]) -> None:
            assert isinstance(layer, nn.Linear)
            rows = rows_of(layer, args[0])
            gram = rows.T @ rows
            moments[name] = moments[name].add_(gram) if name in moments else gram

        return hook

    readers = find_readers(model, axes, images[0][:2])
    layers = {reader.name: model.get_submodule(reader.name) for reader in readers}
    with hooked(*(layer.register_forward_pre_hook(add(name)) for name, layer in layers.items())):
        for batch in images:
            model(batch)
    for total in moments.values():
        parallel.total_(total)
    return moments


@torch.no_grad()
def stand_in(
    model: nn.Module, axis: Axis, kept: Tensor, moments: Mapping[str, Tensor], ridge: float = 0.01
) -> dict[str, Tensor]:
    """Weights in which the units to keep stand in for those to remove, before one axis is cut.

    If inputs R are removed, the best weights of the inputs S that are left follow from moments of
    the whole model: with W its weights and G the moments, S gets W_R G_RS (G_SS + ridge)^-1 more.
    It takes no forward pass, so many options can be tried. It takes the norms of a narrower
    stream to be those of the whole one, and the layers before to be as they were. Where no inputs
    are left, the bias stands in for them by their mean.

    Args:
        model: The whole model.
        axis: The axis to cut.
        kept: The units to keep, flat indices [groups, channels].
        moments: Those of `input_moments`.
        ridge: As for `compensate_`.

    Returns:
        The tensors of the model that change, by name, as wide as they were; weights of the inputs
        to remove are 0.
    """
    tensors: dict[str, Tensor] = {}
    for binding in axis.bindings:
        name = binding.tensor.removesuffix(".weight")
        if binding.dim != 1 or name not in moments:
            continue
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        is_left = torch.zeros(layer.in_features, dtype=torch.bool)  # [inputs]
        is_left[kept_slices(binding, axis, kept.cpu())] = True
        is_left = is_left.to(layer.weight.device)
        change = _change(layer, is_left, moments[name], ridge)

        weight = layer.weight.clone()
        num_left = int(is_left.sum())
        weight[:, is_left] += change[:, :num_left]
        weight[:, ~is_left] = 0
        tensors[binding.tensor] = weight
        if layer.bias is not None:
            tensors[f"{name}.bias"] = layer.bias + change[:, num_left]
    return tensors


def _change(layer: nn.Linear, is_left: Tensor, gram: Tensor, ridge: float) -> Tensor:
    """What the weights of the inputs left get more, and then the bias, [outputs, inputs left]."""
    stays = is_left
    if layer.bias is not None:
        stays = torch.cat([is_left, is_left.new_ones(1)])  # a bias is never removed
    elif not is_left.any():
        return layer.weight.new_zeros(layer.out_features, 0)
    of_left = gram[stays]
    removed_weights = layer.weight[:, ~is_left].double()
    products = of_left[:, ~stays] @ removed_weights.T
    change = solution(of_left[:, stays], products, ridge).T
    return change.to(layer.weight.dtype)

"""Compensation: after a cut, the linear layers that read what is left are solved in closed form.

A cut takes inputs away from layers. Activations are correlated, so the inputs that are left can
make up for part of what is gone: that is a linear regression from the activations of the cut model
to those of its parent. It needs some images, no labels, and no training.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ofbnas import parallel
from ofbnas.models.axes import Axis, Binding
from ofbnas.models.shrink import take_slices
from ofbnas.nas.finished_blocks import KEPT_BYTES, FinishedBlocks, Skipping
from ofbnas.nas.plain import Network
from ofbnas.nas.readers import EndOfPass, Reader, find_readers, hooked, start_graph
from ofbnas.nas.regression import rows_of, solution

Images = Callable[[], Iterable[Tensor]]


class ParentActivations:
    """A parent's activations where layers are compared, for any number of its cuts.

    They are kept, as far as they fit into a number of bytes, since most of the time of a cut would
    go into computing them; others are computed anew each time.
    """

    def __init__(self, parent: nn.Module, kept_bytes: int = KEPT_BYTES) -> None:
        """Begin with none.

        Args:
            parent: In evaluation mode; it must not change.
            kept_bytes: How many may be kept; 0 keeps none.
        """
        self.parent = parent
        self.bytes_left = kept_bytes
        self.kept: dict[tuple[str, int], Tensor] = {}

    def at(self, reader: Reader, images: Tensor, batch: int) -> Tensor:
        """The parent's activations with which those behind a layer are compared, [..., units].

        Args:
            reader: The layer.
            images: [batch, channels, height, width].
            batch: Their number; the same images have the same number at each call.
        """
        place = (reader.norm or reader.name, batch)
        if place in self.kept:
            return self.kept[place]
        activations = _compared(self.parent, reader, images)
        if activations.nbytes <= self.bytes_left:
            self.bytes_left -= activations.nbytes
            self.kept[place] = activations
        return activations


@dataclass(frozen=True)
class Cut:
    """A model and what was removed from it.

    Attributes:
        parent: The model before the cut, in evaluation mode.
        parent_axes: Its axes.
        model: The model after the cut, in evaluation mode, on the same device.
        axes: Its axes.
        units: For each axis that lost units, the flat indices of those of the parent that are left,
            [groups, channels].
    """

    parent: nn.Module
    parent_axes: Sequence[Axis]
    model: nn.Module
    axes: Sequence[Axis]
    units: Mapping[str, Tensor]

    @classmethod
    def between(cls, parent: Network, network: Network) -> Cut:
        """What was removed from a parent to get a network."""
        return cls(parent.model, parent.axes, network.model, network.axes, network.units)

    def left(self, activations: Tensor, axis: Axis, binding: Binding) -> Tensor:
        """Those of the parent's activations that the cut model has too, [..., units left].

        Args:
            activations: [..., units].
            axis: Of the cut model, along which they lie.
            binding: Of the axis.
        """
        if axis.name not in self.units:
            return activations
        (parent_axis,) = (other for other in self.parent_axes if other.name == axis.name)
        units = self.units[axis.name].to(activations.device)
        return take_slices(activations, -1, binding, parent_axis, units)


@torch.no_grad()
def compensate_(
    cut: Cut,
    images: Images,
    ridge: float = 0.01,
    only: Collection[str] | None = None,
    activations: ParentActivations | None = None,
    kept_bytes: int = KEPT_BYTES,
) -> list[str]:
    """Change the linear layers of a cut model so that its activations are nearest to the parent's.

    Layer by layer, in the order of the forward pass. With a the layer's inputs in the cut model,
    and e what its outputs lack, the change D of its weights minimizes

        sum |D a - e|^2 + ridge * mean(diag(sum a a')) * |D|^2,

    summed over images and tokens, with the bias as the weight of one more input, which is 1. As D =
    0 is allowed, the first sum never grows. What outputs lack is

    - for a layer that writes into the residual stream: the parent's stream at the channels left
      minus the present one, as the next norm reads them, so that a layer also makes up for what
      those before it could not;
    - for any other (projections to queries, keys and values, the first layer of an MLP, the
      classifier): the parent's outputs of the same layer minus the present ones.

    Regression of this kind after structured pruning is in SliceGPT, ZipLM and CORP; here the layers
    and what they are compared with follow from the bindings of axes.

    Args:
        cut: What was cut; its model's layers are changed.
        images: Makes batches of images [batch, channels, height, width], the same at each call.
            Each of several processes gives its own, and all get the same weights.
        ridge: Weight of the pull towards the present weights, above 0.
        only: Names of the layers that may change; by default all.
        activations: Of the cut's parent for these images, where it is cut more than once.
        kept_bytes: How many bytes of the outputs of finished blocks may be kept for the model, and
            as many for its parent. With fewer, the result is the same, but takes longer.

    Returns:
        The names of the layers that were solved.
    """
    first_batch = next(iter(images()))
    readers = find_readers(cut.model, cut.axes, first_batch[:2])
    if only is not None:
        readers = [reader for reader in readers if reader.name in only]
    if activations is None:
        activations = ParentActivations(cut.parent, kept_bytes=0)
    layers = [reader.name for reader in readers]
    of_model = FinishedBlocks(cut.model, layers, kept_bytes)
    of_parent = FinishedBlocks(cut.parent, layers, kept_bytes)
    for position, reader in enumerate(readers):
        skipping = (
            of_model.before(position, cut.model),
            of_parent.before(position, cut.parent),
        )
        _solve_(reader, cut, images, ridge, activations, skipping)
    return layers


def _solve_(
    reader: Reader,
    cut: Cut,
    images: Images,
    ridge: float,
    activations: ParentActivations,
    skipping: tuple[Skipping, Skipping],
) -> None:
    """Change the weight and bias of one layer."""
    layer = cut.model.get_submodule(reader.name)
    assert isinstance(layer, nn.Linear)
    num_inputs = layer.in_features + (layer.bias is not None)
    gram = layer.weight.new_zeros(num_inputs, num_inputs, dtype=torch.float64)  # sum a a'
    products = gram.new_zeros(num_inputs, layer.out_features)  # sum a e'
    of_model, of_parent = skipping
    for number, batch in enumerate(images()):
        with of_model(number), of_parent(number):
            target = activations.at(reader, batch, number)
            inputs, lacks = _lacking(reader, cut, batch, target)
        rows = rows_of(layer, inputs)
        gram += rows.T @ rows
        products += rows.T @ lacks.flatten(0, -2).double()
    parallel.total_(gram)
    parallel.total_(products)

    change = solution(gram, products, ridge).T.to(layer.weight.dtype)
    layer.weight += change[:, : layer.in_features]
    if layer.bias is not None:
        layer.bias.add_(change[:, -1])


def _lacking(reader: Reader, cut: Cut, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """A layer's inputs in the cut model, [..., inputs], and what its outputs lack, [..., outputs].

    Args:
        reader: The layer.
        cut: The parent and the cut model.
        images: [batch, channels, height, width].
        target: The parent's activations with which those of the cut model are compared.
    """
    if reader.lies_along is not None:
        target = cut.left(target, *reader.lies_along)
    if reader.norm is None:
        inputs, outputs = _inputs_and_outputs(cut.model, reader.name, images)
        return inputs, target - outputs
    return _lacking_in_stream(cut.model, reader.name, reader.norm, images, target)


def _lacking_in_stream(
    model: nn.Module, layer: str, norm: str, images: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    """The same for a layer that writes into the stream, from the stream as the next norm reads it.

    From a layer's outputs y to the norm's inputs n, all families compute n = P(g * y) + rest, where
    P reorders tokens (windows) and g is a scale of channels (layer scale). So where n lacks e, y
    lacks P'(e) / g. Autograd gives v -> g * P'(v), from which follow g, as P' maps ones to ones,
    and P'(e) = (g * P'(e)) / g.
    """
    seen: dict[str, Tensor] = {}

    def end(_: nn.Module, args: tuple[Tensor]) -> None:
        seen["norm"] = args[0]
        raise EndOfPass

    hooks = (
        model.get_submodule(layer).register_forward_hook(start_graph(seen)),
        model.get_submodule(norm).register_forward_pre_hook(end),
    )
    with torch.no_grad(), hooked(*hooks):
        model(images)
    lacks = target - seen["norm"].detach()
    ones = torch.ones_like(lacks)
    (scale,) = torch.autograd.grad(seen["norm"], seen["outputs"], ones, retain_graph=True)
    (scaled,) = torch.autograd.grad(seen["norm"], seen["outputs"], lacks)
    # Tokens that do not reach the norm, as the padding of windows, have a scale of 0.
    reaches = scale != 0
    lacking = torch.where(reaches, scaled / scale.square(), 0.0)
    return seen["inputs"], lacking


def _compared(model: nn.Module, reader: Reader, images: Tensor) -> Tensor:
    """What the parent has where a layer is compared."""
    if reader.norm is None:
        return _inputs_and_outputs(model, reader.name, images)[1]
    seen: list[Tensor] = []

    def end(_: nn.Module, args: tuple[Tensor]) -> None:
        seen.append(args[0])
        raise EndOfPass

    with hooked(model.get_submodule(reader.norm).register_forward_pre_hook(end)):
        model(images)
    return seen[0]


def _inputs_and_outputs(model: nn.Module, layer: str, images: Tensor) -> tuple[Tensor, Tensor]:
    seen: list[Tensor] = []

    def end(_: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        seen.extend((args[0], output))
        raise EndOfPass

    with hooked(model.get_submodule(layer).register_forward_hook(end)):
        model(images)
    inputs, outputs = seen
    return inputs, outputs

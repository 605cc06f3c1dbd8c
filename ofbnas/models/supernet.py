"""The supernet: an untouched timm model whose weights are masked as its forward pass reads them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from ofbnas.errors import InputError
from ofbnas.models.axes import Axis, Binding, all_bindings, at_sizes
from ofbnas.models.axes import axes as axes_of
from ofbnas.models.axes.branches import branch_constants
from ofbnas.models.bimask import BiMask, ExpectedSize
from ofbnas.models.passes import FeaturesAndOutputs, Passes
from ofbnas.models.shrink import bare_copy, load_, take, with_tensors
from ofbnas.models.tokens import MaskedImageModelling

# Tensors of masked image modelling: the token lies along the first embedding, the decoder's weight
# along the last.
TOKEN = Binding("pmim.mask_token", 0, masked=True)
PROJECT = Binding("pmim.project.weight", 1)


class Supernet(nn.Module):
    """A model and a bi-mask on each of its searched axes.

    A mask m scales rows of weights and biases, which equals scaling the activations they make,

        (diag(m) W) x + m b = m (W x + b),

    so the model's own forward pass runs on `weights()`. With new masks, which are open, that is the
    model itself, bit for bit. A supernet is never changed in its widths: `shrunk`, `rebuilt`,
    `folded` and `only` return another.

    Attributes:
        axes: The model's axes, at its present sizes.
        masks: The bi-masks of the axes that have one.
        pmim: Masked image modelling, or None.
    """

    _sizes: Tensor
    _masked: Tensor

    def __init__(
        self,
        model: nn.Module,
        axes: Sequence[Axis] | None = None,
        masks: Mapping[str, BiMask] | None = None,
        pmim: MaskedImageModelling | None = None,
        residual_mask: bool = False,
    ) -> None:
        """Wrap a model.

        Args:
            model: A timm Vision Transformer.
            axes: Its axes; by default all of `ofbnas.axes(model)`.
            masks: Axis name to bi-mask; by default an open one for each axis that has an option
                besides its size.
            pmim: Masked image modelling, to hide patches and predict them.
            residual_mask: Whether the embedding's mask also acts on what blocks write into the
                residual stream.

        Raises:
            InputError: The model cannot be searched, or has gradient checkpointing on.
        """
        super().__init__()
        if getattr(model, "grad_checkpointing", False):
            raise InputError(
                f"{type(model).__name__} has gradient checkpointing on, which recomputes with the "
                "wrong weights under a mask: call model.set_grad_checkpointing(False)"
            )
        self.whole = Passes(model)
        if axes is None:
            axes = axes_of(model)
        self.axes = tuple(axes)
        if masks is None:
            searched = [axis for axis in self.axes if axis.searched]
            masks = {axis.name: BiMask(axis.size, axis.options) for axis in searched}
        self.masks = nn.ModuleDict()
        for name, mask in masks.items():
            self.masks[_key(name)] = mask
        self.pmim = pmim
        self.residual_mask = residual_mask

        # For `expected_sizes`: units and groups of all axes, and whether they are gone, [axes, 3],
        # and which axes have a mask.
        sizes: list[tuple[int, int, bool]] = []
        masked: list[int] = []
        for index, axis in enumerate(self.axes):
            groups, _ = axis.size
            sizes.append((axis.units, groups, axis.gone))
            if axis.name in masks:
                masked.append(index)
        all_sizes = torch.tensor(sizes, dtype=torch.float32)
        self.register_buffer("_sizes", all_sizes, persistent=False)
        self.register_buffer("_masked", torch.tensor(masked), persistent=False)
        may_go = {name for name, mask in masks.items() if mask.may_go}
        self._constants = branch_constants(
            [axis for axis in self.axes if axis.name in may_go], self.axes, model
        )
        self.to(next(model.parameters()).device)

    @property
    def model(self) -> nn.Module:
        """The timm model; its parameters are trained as they are."""
        return self.whole.model

    def masked(self) -> dict[str, BiMask]:
        """Axis name to bi-mask, in the order of the axes."""
        masked: dict[str, BiMask] = {}
        for axis in self.axes:
            key = _key(axis.name)
            if key in self.masks:
                masked[axis.name] = cast(BiMask, self.masks[key])
        return masked

    def trained(self) -> dict[str, nn.Parameter]:
        """All parameters: the model's by timm's names, then those of masks and of `pmim`."""
        trained = dict(self.model.named_parameters())
        for name, mask in self.masked().items():
            trained[f"masks.{name}.importance"] = mask.importance
            trained[f"masks.{name}.logits"] = mask.logits
        if self.pmim is not None:
            trained |= dict(self.pmim.named_parameters(prefix="pmim"))
        return trained

    def bound(self) -> list[Axis]:
        """The axes with everything of `trained` that follows them."""
        masks = self.masked()
        axes = list(self.axes)
        for index, axis in enumerate(axes):
            if axis.name in masks:
                mask = f"masks.{axis.name}"
                importance = Binding(f"{mask}.importance", 0)
                bound = axis.binding_also(importance)
                axes[index] = replace(bound, branch=(*axis.branch, mask))
        if self.pmim is not None:
            embeddings = [index for index, axis in enumerate(axes) if axis.kind == "embed"]
            first = embeddings[0]
            last = embeddings[-1]  # the same, if there are no stages
            axes[first] = axes[first].binding_also(TOKEN)
            axes[last] = axes[last].binding_also(PROJECT)
        return axes

    def weights(self) -> dict[str, Tensor]:
        """The model's parameters by timm's names, masked; load them into the model to fuse."""
        masked = self.masked_tensors()
        return {name: masked[name] for name, _ in self.model.named_parameters()}

    def passes(
        self,
        images: Tensor,
        hidden: Tensor | None = None,
    ) -> FeaturesAndOutputs:
        """Features and outputs of one forward pass under the masks.

        Args:
            images: [batch, channels, height, width].
            hidden: Numbers of the patches to hide, [batch, hidden]; needs `pmim`.
        """
        # Masks are sums of small probabilities, which lower precision would round; and they are
        # small, so it would save nothing.
        with torch.autocast(images.device.type, enabled=False):
            tensors = self.masked_tensors()
        inner = {f"model.{name}": tensors[name] for name, _ in self.model.named_parameters()}

        hiding: AbstractContextManager[None] = nullcontext()
        if hidden is not None:
            if self.pmim is None:
                raise ValueError(
                    "patches can be hidden only with a mask token: give the supernet its pmim"
                )
            hiding = self.pmim.hiding(
                self.model,
                hidden,
                tensors["pmim.mask_token"],
            )
        with hiding:
            passed: FeaturesAndOutputs = torch.func.functional_call(
                self.whole,
                inner,
                (images,),
            )
        return passed

    def expected_sizes(self) -> ExpectedSize:
        """The expected size of each axis, [axes]."""
        expected = [torch.stack(mask.expected_size()) for mask in self.masked().values()]
        # Axes without a mask keep their present sizes.
        sizes = self._sizes.index_put((self._masked,), torch.stack(expected))
        return ExpectedSize(*sizes.unbind(1))

    def forward(self, images: Tensor) -> Tensor:
        """The model's outputs under the masks, [batch, classes]."""
        return self.passes(images).outputs

    def shrunk(self) -> tuple[Supernet, dict[str, Tensor]]:
        """The supernet without the units that no option alive can keep; this one stays as it is.

        Returns:
            A new supernet over copies of what is kept, and the kept units of each axis that lost
            some.
        """
        kept: dict[str, Tensor] = {}
        sizes: dict[str, tuple[int, int]] = {}
        for name, mask in self.masked().items():
            if mask.widest != mask.size:
                kept[name] = mask.kept()
                sizes[name] = mask.widest
        tensors = take(self.trained(), self.bound(), kept)
        return self.rebuilt(sizes, tensors), kept

    def rebuilt(
        self,
        sizes: Mapping[str, tuple[int, int]],
        tensors: Mapping[str, Tensor],
    ) -> Supernet:
        """A supernet with axes of other sizes and the tensors that go with them.

        Args:
            sizes: Axis name to (groups, channels); an axis that is not named keeps its size.
            tensors: A tensor for each of `trained`.
        """
        axes = at_sizes(self.axes, sizes)
        gone = {axis.name for axis in axes if axis.gone}
        masks: dict[str, BiMask] = {}
        for name, mask in self.masked().items():
            if name not in gone:  # an axis without units has nothing to mask
                masks[name] = mask.resized(sizes.get(name, mask.size))
        return self._with(axes, masks, tensors)

    def fuse(self) -> nn.Module:
        """A plain copy of the model with the masks multiplied into its weights."""
        weights: dict[str, Tensor] = {}
        for name, tensor in self.weights().items():
            weights[name] = tensor.detach()
        return with_tensors(self.model, self.axes, weights)

    def folded(self, names: Collection[str]) -> Supernet:
        """The supernet with some masks multiplied into its weights and dropped."""
        folded = self.only(names).masked_tensors()
        tensors: dict[str, Tensor] = dict(self.trained())
        for name, tensor in folded.items():
            tensors[name] = tensor.detach()

        masks: dict[str, BiMask] = {}
        for name, mask in self.masked().items():
            if name not in names:
                masks[name] = mask.resized(mask.size)
        return self._with(self.axes, masks, tensors)

    def only(self, names: Collection[str]) -> Supernet:
        """The same model and masks, without the masks of other axes."""
        all_masks = self.masked()
        masks = {name: all_masks[name] for name in all_masks if name in names}
        return Supernet(
            self.model,
            self.axes,
            masks,
            self.pmim,
            self.residual_mask,
        )

    def _with(
        self,
        axes: Sequence[Axis],
        masks: Mapping[str, BiMask],
        tensors: Mapping[str, Tensor],
    ) -> Supernet:
        """A supernet of new modules that hold copies of tensors."""
        pmim = None
        if self.pmim is not None:
            pmim = bare_copy(self.pmim)
            own = {name.removeprefix("pmim."): tensor for name, tensor in tensors.items()}
            load_(pmim, (), own)
        model = with_tensors(self.model, axes, tensors)
        other = Supernet(
            model,
            axes,
            masks,
            pmim,
            self.residual_mask,
        )
        with torch.no_grad():
            for name, mask in other.masked().items():
                mask.importance.copy_(tensors[f"masks.{name}.importance"])
                mask.logits.copy_(tensors[f"masks.{name}.logits"])
        return other.train(self.training)

    def masked_tensors(self, tensors: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """All of `trained`, or other tensors by the same names, under the masks."""
        if tensors is None:
            tensors = self.trained()
        result = dict(tensors)
        masks = {name: mask().flatten() for name, mask in self.masked().items()}
        for axis, binding in all_bindings(self.bound()):
            acts = binding.masked or (self.residual_mask and binding.writes)
            if not acts or axis.name not in masks or binding.tensor not in result:
                continue
            tensor = result[binding.tensor]
            result[binding.tensor] = _scale(tensor, binding, masks[axis.name])
        # A branch that is not needed must not add its last bias either.
        for name, constants in self._constants.items():
            stays = self.masked()[name].stays()
            for constant in constants:
                result[constant] = result[constant] * stays
        return result


def _scale(
    tensor: Tensor,
    binding: Binding,
    mask: Tensor,
) -> Tensor:
    """A tensor with each slice along the binding's dimension multiplied by the mask of its unit.

    Args:
        tensor: Of any shape.
        binding: Its `dim` is as long as its copies times the units.
        mask: [units].
    """
    dim = binding.dim % tensor.ndim
    num_dims_after = tensor.ndim - dim - 1
    ones = [1] * num_dims_after
    column = mask.view(-1, *ones)  # to broadcast over the dimensions after the units
    copies = tensor.unflatten(dim, (binding.copies, -1))  # [..., copies, units, ...]
    scaled: Tensor = copies * column
    return scaled.flatten(dim, dim + 1)


def _key(name: str) -> str:
    """An axis' name as the name of a module, which must not have a dot."""
    return name.replace(".", "/")

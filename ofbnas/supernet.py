"""The supernet: an untouched timm model whose weights are masked on the way into its forward pass."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from ofbnas.axes import Axis, Binding, all_bindings, family_of, patch_tokens
from ofbnas.axes import axes as axes_of
from ofbnas.bimask import BiMask
from ofbnas.errors import InputError
from ofbnas.shrink import load_, take
from ofbnas.tokens import MaskedImageModelling

TOKEN, PROJECT = Binding("pmim.mask_token", 0, masked=True), Binding("pmim.project.weight", 1)
Module = TypeVar("Module", bound=nn.Module)


class Supernet(nn.Module):
    """A model and a bi-mask on each of its searched axes.

    A mask scales rows of weights and biases, which equals scaling the activations they make, so the model's own
    forward pass runs on `weights()`. With new masks, which are open, that is the model itself, bit for bit.

    Attributes:
        axes: The model's axes, at its present sizes.
        masks: The bi-masks of the axes that have one.
        pmim: Masked image modelling, or None.
    """

    _places: Tensor
    _sizes: Tensor

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
            masks: Axis name to bi-mask; by default an open one for each axis with more than its size to choose.
            pmim: To hide patches and predict them.
            residual_mask: Whether the embedding's mask also acts on what blocks write into the residual stream.

        Raises:
            InputError: The model cannot be searched, or has gradient checkpointing on.
        """
        super().__init__()
        if getattr(model, "grad_checkpointing", False):
            raise InputError(
                f"{type(model).__name__} has gradient checkpointing on, which recomputes with the wrong weights under "
                "a mask: call model.set_grad_checkpointing(False)"
            )
        self.whole = Passes(model)
        self.axes = tuple(axes_of(model) if axes is None else axes)
        if masks is None:
            masks = {axis.name: BiMask(axis.size, axis.options) for axis in self.axes if axis.searched}
        self.masks = nn.ModuleDict({_key(name): mask for name, mask in masks.items()})
        self.pmim = pmim
        self.residual_mask = residual_mask
        places = [index for index, axis in enumerate(self.axes) if axis.name in masks]
        sizes = torch.tensor([[axis.units, axis.size[0]] for axis in self.axes], dtype=torch.float32)
        self.register_buffer("_places", torch.tensor(places), persistent=False)
        self.register_buffer("_sizes", sizes, persistent=False)
        self.to(next(model.parameters()).device)

    @property
    def model(self) -> nn.Module:
        """The timm model; its parameters are trained as they are."""
        return self.whole.model

    def masked(self) -> dict[str, BiMask]:
        """Axis name to bi-mask, in the order of the axes."""
        keys = {axis.name: _key(axis.name) for axis in self.axes}
        return {name: cast(BiMask, self.masks[key]) for name, key in keys.items() if key in self.masks}

    def trained(self) -> dict[str, nn.Parameter]:
        """All parameters: the model's by timm's names, then those of masks and of masked image modelling."""
        trained = dict(self.model.named_parameters())
        for name, mask in self.masked().items():
            trained |= {f"masks.{name}.importance": mask.importance, f"masks.{name}.logits": mask.logits}
        if self.pmim is not None:
            trained |= {f"pmim.{name}": parameter for name, parameter in self.pmim.named_parameters()}
        return trained

    def bound(self) -> list[Axis]:
        """The axes with everything of `trained` that follows them."""
        masks = self.masked()
        axes = [
            axis.binding_also(Binding(f"masks.{axis.name}.importance", 0)) if axis.name in masks else axis
            for axis in self.axes
        ]
        if self.pmim is not None:
            embeddings = [index for index, axis in enumerate(axes) if axis.kind == "embed"]
            for index, binding in ((embeddings[0], TOKEN), (embeddings[-1], PROJECT)):
                axes[index] = axes[index].binding_also(binding)
        return axes

    def weights(self) -> dict[str, Tensor]:
        """The model's parameters by timm's names, masked; load them into the model to fuse."""
        own = dict(self.model.named_parameters())
        return {name: tensor for name, tensor in self.masked_tensors().items() if name in own}

    def passes(self, images: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Features and outputs of one forward pass.

        Args:
            images: [batch, channels, height, width].
            hidden: Numbers of the patches to hide, [batch, hidden]; needs `pmim`.

        Returns:
            The model's `forward_features`, [batch, tokens, embedding], and its outputs, [batch, classes].
        """
        with torch.autocast(images.device.type, enabled=False):  # masks are small, and sums of small parts
            tensors = self.masked_tensors()
        inner = {f"model.{name}": tensors[name] for name, _ in self.model.named_parameters()}
        if hidden is None:
            hiding: AbstractContextManager[None] = nullcontext()
        elif self.pmim is None:
            raise ValueError("patches can be hidden only with a mask token: give the supernet its pmim")
        else:
            hiding = self.pmim.hiding(self.model, hidden, tensors["pmim.mask_token"])
        with hiding:
            both: tuple[Tensor, Tensor] = torch.func.functional_call(self.whole, inner, (images,))
        return both

    def expected_sizes(self) -> tuple[Tensor, Tensor]:
        """Expected width and number of groups of each axis, [axes] each."""
        found = [torch.stack(mask.expected_size()) for mask in self.masked().values()]
        widths, groups = self._sizes.index_put((self._places,), torch.stack(found)).unbind(1)
        return widths, groups

    def forward(self, images: Tensor) -> Tensor:
        """The model's outputs under the masks, [batch, classes]."""
        return self.passes(images)[1]

    def shrunk(self) -> tuple[Supernet, dict[str, Tensor]]:
        """The supernet without the units that no option alive can keep; this one stays as it is.

        Returns:
            A new supernet over copies of what is kept, and the kept units of each axis that lost some.
        """
        kept = {name: mask.kept() for name, mask in self.masked().items() if mask.room != mask.size}
        sizes = {name: (units.shape[0], units.shape[1]) for name, units in kept.items()}
        return self.rebuilt(sizes, take(self.trained(), self.bound(), kept)), kept

    def rebuilt(self, sizes: Mapping[str, tuple[int, int]], tensors: Mapping[str, Tensor]) -> Supernet:
        """A supernet with axes of other sizes and the tensors that go with them; this one stays as it is.

        Args:
            sizes: Axis name to (groups, channels); an axis that is not named keeps its size.
            tensors: A tensor for each of `trained`.
        """
        axes = [axis.resized(sizes.get(axis.name, axis.size)) for axis in self.axes]
        masks = {name: mask.resized(sizes.get(name, mask.size)) for name, mask in self.masked().items()}
        return self._with(axes, masks, tensors)

    def fuse(self) -> nn.Module:
        """The plain model with the masks multiplied into its weights; the supernet stays as it is."""
        return _with_tensors(self.model, self.axes, {n: tensor.detach() for n, tensor in self.weights().items()})

    def folded(self, names: Collection[str]) -> Supernet:
        """The supernet with some masks multiplied into its weights and dropped; this one stays as it is."""
        tensors = {name: tensor.detach() for name, tensor in self.only(names).masked_tensors().items()}
        rest = {name: mask.resized(mask.size) for name, mask in self.masked().items() if name not in names}
        return self._with(self.axes, rest, self.trained() | tensors)

    def only(self, names: Collection[str]) -> Supernet:
        """The same model and masks, without the masks of other axes."""
        masks = {name: mask for name, mask in self.masked().items() if name in names}
        return Supernet(self.model, self.axes, masks, self.pmim, self.residual_mask)

    def _with(self, axes: Sequence[Axis], masks: Mapping[str, BiMask], tensors: Mapping[str, Tensor]) -> Supernet:
        """A supernet of new modules that hold copies of tensors."""
        pmim = None if self.pmim is None else bare_copy(self.pmim)
        if pmim is not None:
            load_(pmim, (), {name.removeprefix("pmim."): tensor for name, tensor in tensors.items()})
        other = Supernet(_with_tensors(self.model, axes, tensors), axes, masks, pmim, self.residual_mask)
        with torch.no_grad():
            for name, mask in other.masked().items():
                mask.importance.copy_(tensors[f"masks.{name}.importance"])
                mask.logits.copy_(tensors[f"masks.{name}.logits"])
        return other.train(self.training)

    def masked_tensors(self, tensors: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """All of `trained`, or other tensors like them by the same names, with what masks act on masked."""
        tensors = dict(self.trained() if tensors is None else tensors)
        masks = {name: mask().flatten() for name, mask in self.masked().items()}
        for axis, binding in all_bindings(self.bound()):
            acts = binding.masked or (self.residual_mask and binding.writes)
            if not acts or axis.name not in masks or binding.tensor not in tensors:
                continue
            tensor = tensors[binding.tensor]
            dim = binding.dim % tensor.ndim
            mask = masks[axis.name].view(-1, *[1] * (tensor.ndim - dim - 1))
            tensors[binding.tensor] = (tensor.unflatten(dim, (binding.copies, -1)) * mask).flatten(dim, dim + 1)
        return tensors


def _with_tensors(model: nn.Module, axes: Sequence[Axis], tensors: Mapping[str, Tensor]) -> nn.Module:
    """A copy of a model with tensors of its own or of smaller widths."""
    copied = bare_copy(model)
    load_(copied, axes, tensors)
    return copied


def bare_copy(module: Module) -> Module:
    """A copy that is to be given new parameters: it is made without copying the old ones."""
    return copy.deepcopy(module, {id(parameter): parameter for parameter in module.parameters()})


def _key(name: str) -> str:
    """A module's name may hold no dot."""
    return name.replace(".", "/")


class Passes(nn.Module):
    """A timm model's final features and outputs in one call, which `functional_call` and `torch.compile` need."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.channels_first = family_of(model).channels_first

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features [batch, tokens, embedding] and outputs [batch, classes]."""
        model: Any = self.model
        features = model.forward_features(images)
        return patch_tokens(features, self.channels_first), model.forward_head(features)

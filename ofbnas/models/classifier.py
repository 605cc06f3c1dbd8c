"""A subnet with a new classifier, for images of other classes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ofbnas.errors import InputError
from ofbnas.models.axes import axes as axes_of
from ofbnas.models.axes import is_part
from ofbnas.models.axes.axis import Shape, shapes_of
from ofbnas.models.create import on_meta
from ofbnas.models.shrink import shapes_at
from ofbnas.models.subnet import Subnet, with_tensors

STD = 0.02  # of a new classifier's weights, as in timm's Vision Transformers


def with_classifier(subnet: Subnet, num_classes: int) -> Subnet:
    """A subnet with the same sizes and a new classifier; all other weights are the subnet's.

    Weights of the classifier are drawn from torch's generator, and biases are zero.

    Args:
        subnet: The subnet; it is not changed.
        num_classes: Number of classes, at least 1.

    Raises:
        InputError: timm does not say which part of the model is its classifier, or the model has
            other parts than the subnet.
    """
    old = subnet.architecture
    architecture = replace(old, kwargs={**old.kwargs, "num_classes": num_classes})
    parent = on_meta(architecture.model, architecture.kwargs)
    axes = axes_of(parent.model, space={})
    shapes = shapes_at(shapes_of(parent.model.state_dict()), axes, architecture.sizes)
    parts = _classifier_parts(parent.model)

    known = subnet.model.state_dict()
    tensors: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        if is_part(name, parts):
            tensors[name] = _drawn(shape)
        elif name in known and known[name].shape == shape:
            tensors[name] = known[name]
        else:
            raise InputError(
                f"{architecture.model} for {num_classes} classes has {name} with shape {shape}, "
                "which the subnet lacks: it cannot get a classifier"
            )
    return replace(
        subnet,
        architecture=architecture,
        model=with_tensors(parent, axes, architecture.sizes, tensors),
    )


def _classifier_parts(model: nn.Module) -> set[str]:
    """The names of the modules that are a timm model's classifier.

    Raises:
        InputError: timm does not say it.
    """
    known: Any = getattr(model, "pretrained_cfg", {})
    names = known.get("classifier") or ()
    parts = {names} if isinstance(names, str) else set(names)
    if not parts:
        raise InputError(
            f"{type(model).__name__}: timm does not say which of its parts is the classifier, so "
            "it cannot get a new one"
        )
    return parts


def _drawn(shape: Shape) -> Tensor:
    """Fresh values of a classifier's weights, or zeros of its bias."""
    if len(shape) == 1:
        return torch.zeros(shape)
    return nn.init.trunc_normal_(torch.empty(shape), std=STD)

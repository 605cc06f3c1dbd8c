"""Which of timm's models a model in memory is: its name and the arguments it was made with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ofbnas.errors import InputError
from ofbnas.files.weights import check_tensors
from ofbnas.models.axes import axes as axes_of
from ofbnas.models.axes import input_size
from ofbnas.models.axes.arguments import readable_arguments
from ofbnas.models.create import create_parent, on_meta
from ofbnas.models.state_dict import described

Identity = tuple[str, dict[str, Any]]  # timm's name of a model, and its arguments
ADVICE = "give the name and the arguments of timm.create_model that it was made with"


def checked_identity(
    model: nn.Module, name: str | None = None, kwargs: Mapping[str, Any] | None = None
) -> Identity:
    """Which of timm's models a model is, checked by its tensors and outputs.

    Args:
        model: The model; its mode stays as it is. Torch's random state does not.
        name: timm's name of it; by default it is read from the model.
        kwargs: The arguments of timm.create_model, likewise.

    Raises:
        InputError: One of the two is missing, or timm makes another model of them.
    """
    if (name is None) != (kwargs is None):
        raise InputError("name and kwargs go together: give both, or neither")
    if name is None or kwargs is None:
        name, kwargs = identify(model)
    check_identity(model, name, kwargs)
    was_training = model.training
    model.eval()
    try:
        check_outputs(model, name, kwargs)
    finally:
        model.train(was_training)
    return name, dict(kwargs)


def check_identity(model: nn.Module, name: str, kwargs: Mapping[str, Any]) -> None:
    """Check that timm makes a model with the same tensors of a name and arguments.

    A network that is found names its parent by these, so with wrong ones it could not be loaded.

    Args:
        model: The model.
        name: timm's name of it.
        kwargs: The arguments of timm.create_model.

    Raises:
        InputError: timm does not make such a model, its tensors have other names or shapes, or its
            attentions other heads.
    """
    made = on_meta(name, kwargs).model
    claimed = f"the model is not {name} with {dict(kwargs)}"
    check_tensors(described(model.state_dict()), described(made.state_dict()), claimed, ADVICE)
    # Shapes of tensors do not tell how many heads an attention has.
    for axis, expected in zip(axes_of(model, {}), axes_of(made, {}), strict=True):
        if axis.size != expected.size:
            raise InputError(
                f"{claimed}: {axis.name} has the size {axis.size}, expected {expected.size} (heads, "
                f"channels): {ADVICE}"
            )


def identify(model: nn.Module) -> Identity:
    """The name and arguments with which timm makes a model, read from the model itself.

    Arguments that leave no trace in it stay unknown: `check_identity` and `check_outputs` tell.

    Raises:
        InputError: The model does not say its name, as those of timm.create_model do.
    """
    known: Any = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    name = (known or {}).get("architecture")
    if not isinstance(name, str):
        raise InputError(
            f"a {type(model).__name__} does not say which of timm's models it is; give a model that "
            "timm.create_model made, or its name and kwargs"
        )
    usual = readable_arguments(on_meta(name, {}).model)
    kwargs: dict[str, Any] = {}
    for argument, value in readable_arguments(model).items():
        # The number of classes follows from weights that were downloaded, so it is always said.
        if argument == "num_classes" or argument not in usual or value != usual[argument]:
            kwargs[argument] = value
    return name, kwargs


@torch.no_grad()
def check_outputs(model: nn.Module, name: str, kwargs: Mapping[str, Any]) -> None:
    """Check that a name and arguments make a model that computes what a model computes.

    Some arguments, such as the kind of an activation, leave no trace in names and shapes.

    Args:
        model: In evaluation mode; `check_identity` has accepted it.
        name: timm's name of it.
        kwargs: The arguments of timm.create_model.

    Raises:
        InputError: The outputs differ.
    """
    parameter = next(model.parameters())
    made = create_parent(name, kwargs)
    made.load_state_dict(model.state_dict())
    made = made.to(parameter.device, parameter.dtype).eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, *input_size(model), generator=generator)
    images = images.to(parameter.device, parameter.dtype)
    outputs = model(images)
    if not torch.allclose(outputs, made(images), rtol=1e-2, atol=1e-2 * float(outputs.abs().max())):
        raise InputError(
            f"the model has the tensors of {name} with {dict(kwargs)}, but computes something else: "
            f"{ADVICE}"
        )

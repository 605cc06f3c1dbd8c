"""Importing this module lets timm make the networks that ofbnas saved.

`timm.create_model("local-dir:DIR", pretrained=True)`, and likewise "hf-hub:OWNER/NAME", then gives
the network of a folder. timm's own scripts import it with `--device-modules ofbnas.timm`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import timm
import torch
from timm.models import FeatureListNet, build_model_with_cfg, register_model
from torch import nn

from ofbnas.errors import InputError
from ofbnas.models.architecture import Architecture
from ofbnas.models.axes import axes, check_sizes
from ofbnas.models.create import create_parent
from ofbnas.models.shrink import cut_to
from ofbnas.models.state_dict import adapted
from ofbnas.models.subnet_config import ENTRY_POINT


@register_model  # type: ignore[untyped-decorator]
def ofbnas_subnet(
    pretrained: bool = False,
    *,
    parent: str = "",
    sizes: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> nn.Module:
    """A network that was cut from one of timm's models.

    timm takes the arguments from the `model_args` of a saved network's config.json; any other
    argument of timm.create_model may be added or changed, as for other models.

    Args:
        pretrained: Whether it gets its weights; otherwise fresh ones.
        parent: timm's name of the model that it was cut from.
        sizes: Size of each axis, (groups, channels), by the axis' name.
        kwargs: Arguments for the parent, and those of timm.models.build_model_with_cfg.

    Raises:
        InputError: `parent` or `sizes` are missing or do not fit each other.
    """
    if not parent or sizes is None:
        raise InputError(
            f"{ENTRY_POINT} is no model by itself, but stands for those that ofbnas saved: use "
            'timm.create_model("local-dir:DIR", pretrained=True), or "hf-hub:OWNER/NAME"'
        )
    architecture = Architecture.from_json({"model": parent, "kwargs": {}, "sizes": dict(sizes)})

    def make(**model_args: Any) -> nn.Module:
        model = create_parent(parent, model_args)
        model_axes = axes(model, {})
        check_sizes(model_axes, architecture.sizes)
        return cut_to(model, model_axes, architecture.sizes)

    feature_cfg = _feature_cfg(parent, kwargs) if kwargs.get("features_only") else None
    subnet: nn.Module = build_model_with_cfg(
        make,
        ENTRY_POINT,
        pretrained,
        feature_cfg=feature_cfg,
        pretrained_filter_fn=adapted,
        **kwargs,
    )
    return subnet


def _feature_cfg(parent: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """By which of timm's wrappers the parent gives its features, and which features by default."""
    of_builder = inspect.signature(build_model_with_cfg).parameters
    model_args = {key: value for key, value in kwargs.items() if key not in of_builder}
    with torch.device("meta"):
        wrapper = timm.create_model(parent, **model_args)
    is_list = isinstance(wrapper, FeatureListNet)
    return {
        "feature_cls": "list" if is_list else "getter",
        "flatten_sequential": True,
        "out_indices": tuple(wrapper.feature_info.out_indices),
    }

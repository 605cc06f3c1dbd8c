"""How wide a model's intermediate features are, as timm's `feature_info` states them."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from ofbnas.models.axes.axis import Axis


def set_feature_widths_(model: nn.Module, axes: Iterable[Axis]) -> None:
    """State in a model's `feature_info` the channels that its features have.

    A feature is the residual stream somewhere in the model. Models of stages have a stream and a
    feature for each stage.

    Args:
        model: A model; one that is not timm's has no `feature_info`.
        axes: Its axes at their present sizes.
    """
    features: list[dict[str, object]] = getattr(model, "feature_info", [])
    widths = [axis.units for axis in axes if axis.kind == "embed"]
    if len(widths) == 1:
        widths *= len(features)
    for feature, width in zip(features, widths, strict=True):
        feature["num_chs"] = width

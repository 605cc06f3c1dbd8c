"""Features and outputs of a timm model in one call."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

from ofbnas.models.axes import family_of, patch_tokens


class FeaturesAndOutputs(NamedTuple):
    """What a forward pass gives.

    Attributes:
        features: The final features, [batch, tokens, embedding].
        outputs: The outputs, [batch, classes].
    """

    features: Tensor
    outputs: Tensor


class Passes(nn.Module):
    """A timm model's final features and outputs in one call.

    `functional_call` and `torch.compile` need a module with one forward pass.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.channels_first = family_of(model).channels_first

    def forward(self, images: Tensor) -> FeaturesAndOutputs:
        """Features and outputs of images, [batch, channels, height, width]."""
        model: Any = self.model
        features = model.forward_features(images)
        outputs = model.forward_head(features)
        return FeaturesAndOutputs(patch_tokens(features, self.channels_first), outputs)

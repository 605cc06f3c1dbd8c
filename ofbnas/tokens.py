"""Progressive masked image modelling: hiding patches and predicting their pixels (as SimMIM, arXiv 2111.09886)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ofbnas.axes import axes, input_size, patch_grid


class MaskedImageModelling(nn.Module):
    """The token that stands for hidden patches, and the decoder that predicts their pixels.

    The decoder is a 1x1 convolution and a pixel shuffle on the model's final features. Its target is the image
    normalised by a local window of 47 pixels at 224, in proportion at other sizes.

    Attributes:
        mask_token: [embedding].
        grid: Patches, (rows, columns).
        patch: Side of a patch, pixels.
        window: Side of the local window, pixels.
    """

    def __init__(self, model: nn.Module) -> None:
        """Fit a decoder to a timm Vision Transformer with square patches."""
        super().__init__()
        channels, height, _ = input_size(model)
        self.grid = patch_grid(model)
        self.patch = height // self.grid[0]
        self.window = max(3, 2 * round((height * 47 / 224 - 1) / 2) + 1)
        embedding = next(axis.units for axis in axes(model, {}) if axis.kind == "embed")
        self.mask_token = nn.Parameter(torch.zeros(embedding))
        self.project = nn.Conv2d(embedding, self.patch**2 * channels, kernel_size=1)
        nn.init.trunc_normal_(self.project.weight, std=0.02)

    def hide(self, batch: int, share: float) -> Tensor:
        """Choose patches to hide, each with probability `share`: boolean, [batch, patches]."""
        return torch.rand(batch, self.grid[0] * self.grid[1], device=self.mask_token.device) < share

    def forward(self, features: Tensor) -> Tensor:
        """Predicted pixels, [batch, channels, height, width], from features [batch, tokens, embedding].

        Prefix tokens, which come first, are left out.
        """
        patches = features[:, -self.grid[0] * self.grid[1] :]
        return nn.functional.pixel_shuffle(self.project(patches.transpose(1, 2).unflatten(2, self.grid)), self.patch)

    def loss(self, features: Tensor, images: Tensor, hidden: Tensor) -> Tensor:
        """Mean absolute error over hidden pixels, []; 0 where none is hidden.

        Args:
            features: Of the images with hidden patches, [batch, tokens, embedding].
            images: [batch, channels, height, width].
            hidden: Patches that were hidden, boolean, [batch, patches].
        """
        rows = hidden.unflatten(1, self.grid).repeat_interleave(self.patch, 1)
        pixels = rows.repeat_interleave(self.patch, 2)[:, None]
        error = (self(features) - local_norm(images, self.window)).abs().mean(1, keepdim=True)
        mean: Tensor = (error * pixels).sum() / pixels.sum().clamp(min=1)
        return mean


@contextmanager
def hidden_patches(patch_embed: nn.Module, hidden: Tensor | None, token: Tensor | None) -> Iterator[None]:
    """Put a token in the place of hidden patches while the block runs, before positions are added to them.

    Args:
        patch_embed: The model's patch embedding; its output is [batch, patches, embedding], or a map of patches.
        hidden: Patches to hide, boolean, [batch, patches]; None hides none.
        token: [embedding].
    """
    if hidden is None:
        yield
        return
    if token is None:
        raise ValueError("patches can be hidden only with a mask token: give the supernet its pmim")

    def replace(module: nn.Module, inputs: Any, patches: Tensor) -> Tensor:
        return torch.where(hidden.view(*patches.shape[:-1], 1), token.to(patches.dtype), patches)

    handle = patch_embed.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()


def local_norm(images: Tensor, window: int) -> Tensor:
    """Images normalised by the mean and unbiased variance of the window around each pixel.

    Args:
        images: [batch, channels, height, width].
        window: Odd side of the window, pixels; what lies outside the image does not count.
    """
    rows, columns = (_band(size, window, images) for size in images.shape[-2:])
    count = rows.sum(1)[:, None] * columns.sum(1)

    def mean_around(x: Tensor) -> Tensor:
        return rows @ x @ columns / count

    mean = mean_around(images)
    variance = (mean_around(images.square()) - mean.square()) * count / (count - 1)
    return (images - mean) / (variance.clamp(min=0) + 1e-6).sqrt()


def _band(size: int, window: int, like: Tensor) -> Tensor:
    """Which places lie in the window around each, as ones, [size, size]; symmetric."""
    place = torch.arange(size, device=like.device)
    return ((place[:, None] - place).abs() <= window // 2).to(like.dtype)

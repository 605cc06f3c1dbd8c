"""Progressive masked image modelling: hiding patches and predicting their pixels (as SimMIM, arXiv 2111.09886)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_unshuffle

from ofbnas.axes import axes, family_of, final_embedding, final_grid, input_size, patch_grid


class MaskedImageModelling(nn.Module):
    """The token that stands for hidden patches, and the decoder that predicts their pixels.

    The decoder is one linear layer on the model's final features of hidden patches, which is a 1x1 convolution and a
    pixel shuffle. Its target is the image normalised by a local window of 47 pixels at 224, in proportion at other
    sizes. Where stages merge patches, a hidden patch is all that becomes one place of the final features.

    Attributes:
        mask_token: [first embedding].
        grid: Places of the final features, (rows, columns).
        patches: Patches, (rows, columns); more than places where stages merge them.
        patch: Side of a patch, pixels.
        window: Side of the local window, pixels.
    """

    def __init__(self, model: nn.Module) -> None:
        """Fit a decoder to a timm model with square patches."""
        super().__init__()
        channels, height, _ = input_size(model)
        self.grid, self.patches = final_grid(model), patch_grid(model)
        self.channels_first = family_of(model).channels_first
        self.patch = height // self.grid[0]
        self.window = max(3, 2 * round((height * 47 / 224 - 1) / 2) + 1)
        found = axes(model, {})
        first = next(axis.units for axis in found if axis.kind == "embed")
        self.mask_token = nn.Parameter(torch.zeros(first))
        self.project = nn.Linear(final_embedding(found).units, channels * self.patch**2)
        nn.init.trunc_normal_(self.project.weight, std=0.02)

    def hide(self, batch: int, share: float, seed: int) -> Tensor:
        """Choose patches to hide: their numbers, [batch, hidden].

        As many are hidden in each image as the share says; where that is between two whole numbers, one of them by
        chance, so that the share holds on average.

        Args:
            batch: Images.
            share: Of patches.
            seed: Of the choice.
        """
        places = self.grid[0] * self.grid[1]
        count = int(share * places + random.Random(seed).random())
        generator = torch.Generator(self.mask_token.device).manual_seed(seed)
        noise = torch.rand(batch, places, generator=generator, device=self.mask_token.device)
        return noise.topk(count, dim=1).indices

    def forward(self, features: Tensor, hidden: Tensor) -> Tensor:
        """Predicted pixels of hidden patches, [batch, hidden, channels x patch x patch].

        Args:
            features: [batch, tokens, embedding]; prefix tokens come first.
            hidden: Numbers of hidden patches, [batch, hidden].
        """
        patches = features[:, -self.grid[0] * self.grid[1] :]
        predicted: Tensor = self.project(patches.gather(1, hidden[..., None].expand(-1, -1, features.shape[-1])))
        return predicted

    def loss(self, features: Tensor, images: Tensor, hidden: Tensor) -> Tensor:
        """Mean absolute error over the pixels of hidden patches, [].

        Args:
            features: Of the images with hidden patches, [batch, tokens, embedding].
            images: [batch, channels, height, width].
            hidden: Numbers of hidden patches, at least one, [batch, hidden].
        """
        target = pixel_unshuffle(local_norm(images, self.window), self.patch).flatten(2).transpose(1, 2)
        goal = target.gather(1, hidden[..., None].expand(-1, -1, target.shape[-1]))
        return nn.functional.l1_loss(self(features, hidden), goal)

    @contextmanager
    def hiding(self, model: nn.Module, hidden: Tensor, token: Tensor) -> Iterator[None]:
        """Put a token in the place of hidden patches while the block runs, before positions are added to them.

        Args:
            model: The model this was fitted to, at any widths.
            hidden: Numbers of the places of `grid` to hide, [batch, hidden].
            token: [first embedding].
        """
        grid, patches = self.grid, self.patches

        def replace(module: nn.Module, inputs: Any, embedded: Tensor) -> Tensor:
            where = torch.zeros(len(embedded), grid[0] * grid[1], dtype=torch.bool, device=embedded.device)
            where = where.scatter(1, hidden, True).unflatten(1, grid)
            where = where.repeat_interleave(patches[0] // grid[0], 1).repeat_interleave(patches[1] // grid[1], 2)
            if embedded.ndim == 3:
                return torch.where(where.flatten(1)[..., None], token.to(embedded.dtype), embedded)
            if self.channels_first:
                return torch.where(where[:, None], token.to(embedded.dtype)[:, None, None], embedded)
            return torch.where(where[..., None], token.to(embedded.dtype), embedded)

        handle = model.get_submodule("patch_embed").register_forward_hook(replace)
        try:
            yield
        finally:
            handle.remove()


@torch.no_grad()
def local_norm(images: Tensor, window: int) -> Tensor:
    """Images normalised by the mean and unbiased variance of the window around each pixel.

    Args:
        images: [batch, channels, height, width].
        window: Odd side of the window, pixels; what lies outside the image does not count.
    """
    count = _window_sum(torch.ones_like(images[:1, :1]), window)
    mean = _window_sum(images, window).div_(count)
    scale = _window_sum(images.square(), window).div_(count).addcmul_(mean, mean, value=-1)  # in place: maps are large
    scale.mul_(count / (count - 1)).clamp_(min=0).add_(1e-6).rsqrt_()
    return mean.neg_().add_(images).mul_(scale)


def _window_sum(x: Tensor, window: int) -> Tensor:
    """Sums over the window around each pixel, as differences of running sums; like `x`."""
    reach = window // 2
    for dim in (-1, -2):
        inner, running = x.shape[dim] - window, x.cumsum(dim)
        first = running.narrow(dim, reach, reach + 1)
        middle = running.narrow(dim, window, inner) - running.narrow(dim, 0, inner)
        last = running.narrow(dim, -1, 1) - running.narrow(dim, inner, reach)
        x = torch.cat([first, middle, last], dim)
    return x

"""Progressive masked image modelling: hiding patches and predicting their pixels.

The decoder and the loss are those of SimMIM (arXiv 2111.09886).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, pixel_unshuffle

from ofbnas.models.axes import axes, family_of, final_embedding, final_grid, input_size, patch_grid

WINDOW_AT_224 = 47  # side of the local window where images are 224 pixels high


class MaskedImageModelling(nn.Module):
    """The token that replaces hidden patches, and the decoder that predicts their pixels.

    The decoder is one linear layer on the model's final features of hidden patches, which is a 1x1
    convolution and a pixel shuffle. Its target is the image normalised by a local window of 47
    pixels at 224, in proportion at other sizes. Where stages merge patches, a hidden patch is all
    that becomes one place of the final features.

    Attributes:
        mask_token: [first embedding].
        grid: Places of the final features, (rows, columns).
        patches: Patches, (rows, columns); more than places where stages merge them.
        merging: Patches along each side of a place.
        patch: Side of a place, pixels; the last ones may reach beyond the image.
        window: Side of the local window, pixels.
    """

    def __init__(self, model: nn.Module) -> None:
        """Fit a decoder to a timm model with square patches."""
        super().__init__()
        size = input_size(model)
        channels = size[0]
        height = size[1]
        self.grid = final_grid(model)
        self.patches = patch_grid(model)
        family = family_of(model)
        self.channels_first = family.channels_first
        self.merging = family.merging(model)
        self.patch = height // self.patches[0] * self.merging
        self.window = _nearest_odd(height * WINDOW_AT_224 / 224)

        model_axes = axes(model, {})
        embeddings = [axis for axis in model_axes if axis.kind == "embed"]
        pixels_in_patch = channels * self.patch**2
        self.mask_token = nn.Parameter(torch.zeros(embeddings[0].units))
        self.project = nn.Linear(final_embedding(model_axes).units, pixels_in_patch)
        nn.init.trunc_normal_(self.project.weight, std=0.02)

    def hide(
        self,
        batch: int,
        share: float,
        seed: int,
    ) -> Tensor:
        """Choose patches to hide: their numbers, [batch, hidden].

        In each image as many are hidden as the share says. Where that is between two whole numbers,
        one of the two is drawn, so that the share holds on average.

        Args:
            batch: Number of images.
            share: Share of the patches to hide.
            seed: Random seed of the choice.
        """
        places = self.grid[0] * self.grid[1]
        # Rounded up with the probability of the fraction, so that the mean is exact.
        count = int(share * places + random.Random(seed).random())
        device = self.mask_token.device
        generator = torch.Generator(device).manual_seed(seed)
        noise = torch.rand(batch, places, generator=generator, device=device)
        return noise.topk(count, dim=1).indices

    def forward(self, features: Tensor, hidden: Tensor) -> Tensor:
        """Predicted pixels of hidden patches, [batch, hidden, channels x patch x patch].

        Args:
            features: [batch, tokens, embedding]; prefix tokens come first.
            hidden: Numbers of hidden patches, [batch, hidden].
        """
        places = self.grid[0] * self.grid[1]
        patches = features[:, -places:]
        predicted: Tensor = self.project(_rows(patches, hidden))
        return predicted

    def loss(
        self,
        features: Tensor,
        images: Tensor,
        hidden: Tensor,
    ) -> Tensor:
        """Mean absolute error over the pixels of hidden patches, [].

        Args:
            features: Final features of the images with hidden patches,
                [batch, tokens, embedding].
            images: [batch, channels, height, width].
            hidden: Numbers of hidden patches, at least one, [batch, hidden].
        """
        predicted = self(features, hidden)
        normed = local_norm(images, self.window)
        rows, columns = self.grid
        height, width = images.shape[-2:]
        beyond = (0, columns * self.patch - width, 0, rows * self.patch - height)
        if not any(beyond):
            return nn.functional.l1_loss(predicted, self._pixels(normed, hidden))

        # What lies beyond the image has no pixels to predict.
        target = self._pixels(pad(normed, beyond), hidden)
        inside = self._pixels(pad(torch.ones_like(images), beyond), hidden) > 0
        return nn.functional.l1_loss(predicted, torch.where(inside, target, predicted.detach()))

    def _pixels(self, images: Tensor, places: Tensor) -> Tensor:
        """The pixels of some places, [batch, places, channels x patch x patch].

        Args:
            images: [batch, channels, height, width], as large as all places together.
            places: Numbers of the places, [batch, places].
        """
        by_place = pixel_unshuffle(images, self.patch)  # [batch, pixels, rows, columns]
        return _rows(by_place.flatten(2).transpose(1, 2), places)

    @contextmanager
    def hiding(
        self,
        model: nn.Module,
        hidden: Tensor,
        token: Tensor,
    ) -> Iterator[None]:
        """Replace hidden patches by a token while the block runs.

        They are replaced before positions are added.

        Args:
            model: The model this was fitted to, at any widths.
            hidden: Numbers of the places of `grid` to hide, [batch, hidden].
            token: [first embedding].
        """

        def replace(
            module: nn.Module,
            inputs: Any,
            embedded: Tensor,
        ) -> Tensor:
            is_hidden = self._hidden_patches(
                hidden,
                len(embedded),
                embedded.device,
            )
            filler = token.to(embedded.dtype)
            if embedded.ndim == 3:  # [batch, patches, embedding]
                is_hidden = is_hidden.flatten(1)[..., None]
            elif self.channels_first:  # [batch, embedding, rows, columns]
                is_hidden = is_hidden[:, None]
                filler = filler[:, None, None]
            else:  # [batch, rows, columns, embedding]
                is_hidden = is_hidden[..., None]
            return torch.where(is_hidden, filler, embedded)

        patch_embed = model.get_submodule("patch_embed")
        handle = patch_embed.register_forward_hook(replace)
        try:
            yield
        finally:
            handle.remove()

    def _hidden_patches(
        self,
        hidden: Tensor,
        batch: int,
        device: torch.device,
    ) -> Tensor:
        """Which patches lie in hidden places, [batch, rows, columns of patches], boolean."""
        rows, columns = self.grid
        patch_rows, patch_columns = self.patches
        nowhere = torch.zeros(
            batch,
            rows * columns,
            dtype=torch.bool,
            device=device,
        )
        is_hidden = nowhere.scatter(1, hidden, True)
        places: Tensor = is_hidden.unflatten(1, self.grid)
        by_row = places.repeat_interleave(self.merging, 1)
        by_patch = by_row.repeat_interleave(self.merging, 2)
        return by_patch[:, :patch_rows, :patch_columns]


def _rows(values: Tensor, indices: Tensor) -> Tensor:
    """For each image the values at its indices, [batch, indices, channels].

    Args:
        values: [batch, places, channels].
        indices: [batch, indices].
    """
    channels = values.shape[-1]
    index = indices[..., None].expand(-1, -1, channels)
    return values.gather(1, index)


def _nearest_odd(length: float) -> int:
    """The odd number nearest to a length, at least 3.

    >>> _nearest_odd(47.0), _nearest_odd(80.6), _nearest_odd(1.7)
    (47, 81, 3)
    """
    half = round((length - 1) / 2)
    return max(3, 2 * half + 1)


@torch.no_grad()
def local_norm(images: Tensor, window: int) -> Tensor:
    """Images normalised by the mean and unbiased variance of the window around each pixel.

    Args:
        images: [batch, channels, height, width].
        window: Odd side of the window, pixels; what lies outside the image does not count.
    """
    # With n pixels in the window,
    #     mean = sum x / n,
    #     variance = (sum x^2 / n - mean^2) n / (n - 1).
    # All is computed in place, as maps are large.
    count = _window_sum(torch.ones_like(images[:1, :1]), window)  # n, smaller near the edges
    mean = _window_sum(images, window)
    mean.div_(count)

    variance = _window_sum(images.square(), window)
    variance.div_(count)
    variance.addcmul_(mean, mean, value=-1)
    variance.mul_(count / (count - 1))
    variance.clamp_(min=0)  # rounding may make it negative

    # (x - mean) / sqrt(variance + 1e-6)
    scale = variance.add_(1e-6).rsqrt_()
    centred = mean.neg_().add_(images)
    return centred.mul_(scale)


def _window_sum(x: Tensor, window: int) -> Tensor:
    """Sums over the window around each pixel, as differences of running sums; like `x`."""
    reach = window // 2
    for dim in (-1, -2):
        inner = x.shape[dim] - window
        running = x.cumsum(dim)
        # A window ends at its pixel plus `reach`, or at the edge. Windows of the first pixels begin
        # at the edge, so nothing is subtracted from their running sums.
        first = running.narrow(dim, reach, reach + 1)
        ends = running.narrow(dim, window, inner)
        starts = running.narrow(dim, 0, inner)
        total = running.narrow(dim, -1, 1)
        last_starts = running.narrow(dim, inner, reach)
        x = torch.cat([first, ends - starts, total - last_starts], dim)
    return x

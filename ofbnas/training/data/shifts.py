"""Augmentation of small images: shifts by whole pixels, and mirroring."""

from __future__ import annotations

import torch
from torch import Tensor


def augment(
    images: Tensor,
    shift: int,
    flip: bool,
    generator: torch.Generator,
    count: int | None = None,
    part: slice = slice(None),
) -> Tensor:
    """Images shifted and mirrored at random; a shift repeats the pixels at the edge.

    Args:
        images: [batch, channels, height, width].
        shift: Images are shifted by up to this many pixels in each direction.
        flip: Whether images are mirrored with probability one half.
        generator: Random generator on the images' device.
        count: Number of images of the whole batch that these are a part of; by default all.
        part: Which part of it they are.
    """
    if not (flip or shift):
        return images
    device = images.device
    batch = len(images)
    height, width = images.shape[2:]
    if count is None:
        count = batch

    # The pixel of an output image at (row, column) comes from (rows[row], columns[column]). All is
    # drawn for the whole batch: an image is mirrored and moves alike, whichever process has it.
    rows = torch.arange(height, device=device).expand(batch, -1)
    columns = torch.arange(width, device=device).expand(batch, -1)
    if flip:
        drawn = torch.rand(count, 1, generator=generator, device=device)
        is_mirrored = drawn[part] < 0.5
        mirrored = width - 1 - columns
        columns = torch.where(is_mirrored, mirrored, columns)
    if shift:
        size = (2, count, 1)
        moves = torch.randint(
            -shift,
            shift + 1,
            size,
            generator=generator,
            device=device,
        )
        down, right = moves[:, part]
        rows = (rows + down).clamp(0, height - 1)
        columns = (columns + right).clamp(0, width - 1)
    image = torch.arange(batch, device=device)[:, None, None]
    row = rows[:, :, None]
    column = columns[:, None, :]
    # Indices on both sides of a slice put its dimension last: [batch, height, width, channels].
    moved = images[image, :, row, column]
    return moved.permute(0, 3, 1, 2)

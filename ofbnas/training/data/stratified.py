"""Splitting images with the classes in proportion."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ofbnas.errors import InputError


def stratified_split(
    labels: NDArray[np.int64],
    share: float,
    seed: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split images into a share and the rest, each with the classes in proportion.

    Args:
        labels: Class of each image.
        share: Share of the images, between 0 and 1.
        seed: Random seed.

    Returns:
        Indices of the rest, and of the share, in ascending order.

    Raises:
        InputError: There are too few images to split.
    """
    from sklearn.model_selection import train_test_split

    try:
        rest, part = train_test_split(
            np.arange(len(labels)),
            test_size=share,
            stratify=labels,
            random_state=seed,
        )
    except ValueError as error:
        raise InputError(
            f"{len(labels)} images cannot be split at a share of {share}: {error}"
        ) from None
    return np.sort(rest), np.sort(part)

"""The files of Fashion-MNIST, in MNIST's format IDX."""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ofbnas.errors import InputError

UNSIGNED_BYTES = b"\x00\x00\x08"  # how an IDX file of unsigned bytes starts
FASHION_MNIST_FILES = {
    ("train", "images-idx3"): "train-images-idx3-ubyte.gz",
    ("train", "labels-idx1"): "train-labels-idx1-ubyte.gz",
    ("t10k", "images-idx3"): "t10k-images-idx3-ubyte.gz",
    ("t10k", "labels-idx1"): "t10k-labels-idx1-ubyte.gz",
}


class FashionMnist(NamedTuple):
    """All images of Fashion-MNIST, those for training first.

    Attributes:
        pixels: 0 to 255, [count, height, width].
        labels: Classes, [count].
        num_train: Number of images for training.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    num_train: int


def read_fashion_mnist(path: Path) -> FashionMnist:
    """Fashion-MNIST, from the folder with its four files.

    Raises:
        InputError: A file is missing or is not a file of this data set.
    """
    arrays = {key: read_idx(path / name) for key, name in FASHION_MNIST_FILES.items()}
    train_pixels = arrays["train", "images-idx3"]
    test_pixels = arrays["t10k", "images-idx3"]
    train_labels = arrays["train", "labels-idx1"]
    test_labels = arrays["t10k", "labels-idx1"]
    pixels = np.concatenate([train_pixels, test_pixels])
    labels = np.concatenate([train_labels, test_labels])
    return FashionMnist(pixels, labels.astype(np.int64), len(train_labels))


def read_idx(path: Path) -> NDArray[np.uint8]:
    """An array of unsigned bytes from a gzipped IDX file.

    Raises:
        InputError: There is no such file, or it is not an IDX file of bytes.
    """
    try:
        with gzip.open(path) as file:
            raw = file.read()
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; data.path must name the folder with "
            f"{', '.join(FASHION_MNIST_FILES.values())} "
            "(Debian's package dataset-fashion-mnist has it)"
        ) from None
    except (OSError, EOFError) as error:
        raise InputError(f"{path}: is not a gzipped IDX file ({error})") from None

    # The header: two zero bytes, 8 for "unsigned byte", the rank, a 32-bit number per dimension.
    if len(raw) < 4 or not raw.startswith(UNSIGNED_BYTES):
        raise InputError(f"{path}: is not an IDX file of unsigned bytes")
    rank = raw[3]
    header_size = 4 + 4 * rank
    shape = (
        np.frombuffer(
            raw,
            dtype=">u4",
            count=rank,
            offset=4,
        )
        .astype(int)
        .tolist()
    )
    if len(raw) != header_size + math.prod(shape):
        raise InputError(
            f"{path}: holds {len(raw)} bytes, its header promises an array of {tuple(shape)}"
        )
    values = np.frombuffer(raw, dtype=np.uint8, offset=header_size)
    return values.reshape(shape)

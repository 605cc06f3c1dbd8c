"""Data sets by name: images and labels in memory, split into train, validation and test."""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ofbnas.errors import InputError

FASHION_MNIST_FILES = {
    (split, part): f"{split}-{part}-ubyte.gz" for split in ("train", "t10k") for part in ("images-idx3", "labels-idx1")
}


# Data set: number of classes, size of its images (channels, height, width).
KNOWN = {"digits": (10, (1, 8, 8)), "fashion_mnist": (10, (1, 28, 28))}


@dataclass(frozen=True)
class Split:
    """Images [count, channels, height, width], normalised, and labels [count]."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All images in order, each once; the last batch may be smaller."""
        yield from zip(self.images.split(size), self.labels.split(size), strict=True)

    def to(self, device: torch.device | str) -> Split:
        """The split on a device."""
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Data:
    """A data set.

    Attributes:
        train: To train on.
        val: To decide by.
        test: To report.
        num_classes: Number of classes.
        shift: Training images are moved by up to this many pixels each way.
        flip: Training images are mirrored half of the time.
    """

    train: Split
    val: Split
    test: Split
    num_classes: int
    shift: int = 0
    flip: bool = False

    def to(self, device: torch.device | str) -> Data:
        """The data set on a device."""
        return replace(self, train=self.train.to(device), val=self.val.to(device), test=self.test.to(device))

    def num_batches(self, size: int) -> int:
        """Batches of an epoch of `shuffled`: at least 1, and incomplete ones are left out."""
        return max(1, len(self.train) // size)

    def shuffled(self, size: int, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch of training batches, augmented; the same for the same seed and epoch."""
        device = self.train.images.device
        generator = torch.Generator(device).manual_seed(seed * 100_003 + epoch)
        order = torch.randperm(len(self.train), generator=generator, device=device)
        for batch in order.split(size)[: self.num_batches(size)]:
            yield (
                augment(self.train.images[batch], self.shift, self.flip, generator),
                self.train.labels[batch],
            )


def augment(images: Tensor, shift: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Images moved by up to `shift` pixels each way, edges repeated outwards, and mirrored half of the time.

    Args:
        images: [batch, channels, height, width].
        shift: Pixels.
        flip: Whether to mirror.
        generator: Source of randomness, on the images' device.
    """
    batch, _, height, width = images.shape
    device = images.device
    columns = torch.arange(width, device=device).expand(batch, -1)
    rows = torch.arange(height, device=device).expand(batch, -1)
    if flip:
        mirrored = torch.rand(batch, 1, generator=generator, device=device) < 0.5
        columns = torch.where(mirrored, width - 1 - columns, columns)
    if shift:
        move = torch.randint(-shift, shift + 1, (2, batch, 1), generator=generator, device=device)
        rows = (rows + move[0]).clamp(0, height - 1)
        columns = (columns + move[1]).clamp(0, width - 1)
    if not (flip or shift):
        return images
    index = torch.arange(batch, device=device)[:, None, None]
    return images[index, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def load_data(
    name: str,
    *,
    path: Path | None = None,
    val_share: float = 0.15,
    test_share: float = 0.2,
    split_seed: int = 0,
    shift: int = 0,
    flip: bool = False,
) -> Data:
    """A data set by name.

    Args:
        name: "digits" or "fashion_mnist".
        path: Folder of its files; digits has none.
        val_share: Share of the training images set aside for validation, stratified by class.
        test_share: Share of all images set aside for testing, where the data set has no test split of its own.
        split_seed: Seed of both splits.
        shift: Training images are moved by up to this many pixels each way.
        flip: Training images are mirrored half of the time.

    Raises:
        InputError: The name is unknown, or files are missing or damaged.
    """
    if name not in KNOWN:
        raise InputError(f"data set {name} is unknown, expected one of {', '.join(KNOWN)}")
    if name == "digits":
        data = digits(val_share=val_share, test_share=test_share, split_seed=split_seed)
    elif path is None:
        raise InputError(f"data.path is missing: {name} needs the folder of its files")
    else:
        data = fashion_mnist(path, val_share=val_share, split_seed=split_seed)
    return replace(data, shift=shift, flip=flip)


def digits(*, val_share: float, test_share: float, split_seed: int) -> Data:
    """scikit-learn's 1,797 handwritten digits of 8x8 pixels, 10 classes."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    rest, test = stratified_split(labels, test_share, split_seed)
    train, val = stratified_split(labels[rest], val_share, split_seed)
    return _normalised(images, torch.tensor(labels), rest[train], rest[val], test)


def fashion_mnist(path: Path, *, val_share: float, split_seed: int) -> Data:
    """Fashion-MNIST, 28x28 pixels, 10 classes; its own 10,000 test images, validation taken from the 60,000.

    Args:
        path: Folder with the four .gz files of the original distribution.
        val_share: Share of the training images set aside for validation.
        split_seed: Seed of that.

    Raises:
        InputError: A file is missing or is none of this kind.
    """
    parts = {key: read_idx(path / name) for key, name in FASHION_MNIST_FILES.items()}
    pixels = np.concatenate([parts["train", "images-idx3"], parts["t10k", "images-idx3"]])
    labels = np.concatenate([parts["train", "labels-idx1"], parts["t10k", "labels-idx1"]]).astype(np.int64)
    count = len(parts["train", "labels-idx1"])
    train, val = stratified_split(labels[:count], val_share, split_seed)
    images = torch.from_numpy(pixels).unsqueeze(1).float() / 255
    return _normalised(images, torch.from_numpy(labels), train, val, np.arange(count, len(labels)))


def read_idx(path: Path) -> NDArray[np.uint8]:
    """An array of unsigned bytes from a gzipped IDX file.

    Raises:
        InputError: There is no such file, or it is none.
    """
    try:
        with gzip.open(path) as file:
            raw = file.read()
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; data.path must name the folder with {', '.join(FASHION_MNIST_FILES.values())} "
            "(Debian's package dataset-fashion-mnist has it)"
        ) from None
    except (OSError, EOFError) as error:
        raise InputError(f"{path}: no gzipped IDX file ({error})") from None
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08":
        raise InputError(f"{path}: no IDX file of unsigned bytes")
    rank = raw[3]
    shape = np.frombuffer(raw, dtype=">u4", count=rank, offset=4).astype(int)
    if len(raw) != 4 + 4 * rank + math.prod(shape.tolist()):
        raise InputError(f"{path}: holds {len(raw)} bytes, its header promises an array of {tuple(shape.tolist())}")
    return np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * rank).reshape(shape.tolist())


def stratified_split(labels: NDArray[np.int64], share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the rest and of the share, with each class in both in proportion, in ascending order."""
    from sklearn.model_selection import train_test_split

    rest, part = train_test_split(np.arange(len(labels)), test_size=share, stratify=labels, random_state=seed)
    return np.sort(rest), np.sort(part)


def _normalised(
    images: Tensor, labels: Tensor, train: NDArray[np.int64], val: NDArray[np.int64], test: NDArray[np.int64]
) -> Data:
    """The splits, with the training images' mean and standard deviation per channel taken out of all."""
    std, mean = torch.std_mean(images[train], dim=(0, 2, 3), keepdim=True)
    images = (images - mean) / std
    train_split, val_split, test_split = (Split(images[index], labels[index]) for index in (train, val, test))
    return Data(train_split, val_split, test_split, num_classes=int(labels.max()) + 1)

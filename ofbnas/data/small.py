"""Small data sets that fit into memory: scikit-learn's digits, Fashion-MNIST."""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ofbnas.data.base import Batches, Data, Epoch, rand_augment_of
from ofbnas.errors import InputError
from ofbnas.parallel import Shard

ALL = Shard()
FASHION_MNIST_FILES = {
    (split, part): f"{split}-{part}-ubyte.gz" for split in ("train", "t10k") for part in ("images-idx3", "labels-idx1")
}

# Size of the images (channels, height, width).
SIZES = {"digits": (1, 8, 8), "fashion_mnist": (1, 28, 28)}


@dataclass(frozen=True)
class SmallSplit:
    """Images [count, channels, height, width], normalised, and labels [count]."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, size: int, shard: Shard = ALL) -> Iterator[tuple[Tensor, Tensor]]:
        """The shard's images in order, each once; the last batch may be smaller."""
        mine = shard.of(len(self))
        yield from zip(self.images[mine].split(size), self.labels[mine].split(size), strict=True)

    def to(self, device: torch.device | str) -> Self:
        """The split on a device."""
        return type(self)(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class SmallData(Data):
    """A data set in memory.

    Attributes:
        train: To train on.
        val: To decide by.
        test: To report.
        num_classes: Number of classes.
        mean: What was taken out of images of 0 to 1, per channel.
        std: What they were divided by, per channel.
        shift: Training images are moved by up to this many pixels each way.
        flip: Training images are mirrored half of the time.
    """

    train: SmallSplit
    val: SmallSplit
    test: SmallSplit
    num_classes: int
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    shift: int = 0
    flip: bool = False

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self.train.images.device

    @property
    def train_images(self) -> int:
        """Number of training images."""
        return len(self.train)

    def to(self, device: torch.device | str) -> SmallData:
        """The data set on a device."""
        return replace(self, train=self.train.to(device), val=self.val.to(device), test=self.test.to(device))

    def shuffled(self, size: int, epoch: Epoch) -> Batches:
        """One epoch of augmented training batches; shifts and flips are the same however many shards there are."""
        indices, generator = epoch.order(len(self.train)).to(self.device), epoch.generator(self.device, rank=1)
        for batch in indices.split(size)[: self.num_batches(size)]:
            part = epoch.shard.of(len(batch))
            mine = batch[part]
            images = self.train.images[mine]
            if epoch.rand_augment is not None:
                images = self._rand_augmented(images, epoch.rand_augment)
            yield augment(images, self.shift, self.flip, generator, len(batch), part), self.train.labels[mine]

    def _rand_augmented(self, images: Tensor, description: str) -> Tensor:
        """Images after timm's RandAugment, which works on bytes and on the CPU."""
        mean, std = self.mean[0], self.std[0]
        change = rand_augment_of(description, round(255 * mean))
        pixels = ((images * std + mean) * 255).round().clamp(0, 255).byte().squeeze(1).cpu().numpy()
        changed = np.stack([np.asarray(change(Image.fromarray(image))) for image in pixels])
        floats = torch.from_numpy(changed).to(images.device).unsqueeze(1).float() / 255
        return (floats - mean) / std


def augment(
    images: Tensor,
    shift: int,
    flip: bool,
    generator: torch.Generator,
    count: int | None = None,
    part: slice = slice(None),
) -> Tensor:
    """Images moved by up to `shift` pixels each way, edges repeated outwards, and mirrored half of the time.

    Args:
        images: [batch, channels, height, width].
        shift: Pixels.
        flip: Whether to mirror.
        generator: Source of randomness, on the images' device.
        count: Images of the whole batch that these are a part of.
        part: Which part.
    """
    batch, _, height, width = images.shape
    count, device = batch if count is None else count, images.device
    columns = torch.arange(width, device=device).expand(batch, -1)
    rows = torch.arange(height, device=device).expand(batch, -1)
    if flip:
        mirrored = torch.rand(count, 1, generator=generator, device=device)[part] < 0.5
        columns = torch.where(mirrored, width - 1 - columns, columns)
    if shift:
        move = torch.randint(-shift, shift + 1, (2, count, 1), generator=generator, device=device)[:, part]
        rows = (rows + move[0]).clamp(0, height - 1)
        columns = (columns + move[1]).clamp(0, width - 1)
    if not (flip or shift):
        return images
    index = torch.arange(batch, device=device)[:, None, None]
    return images[index, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def small_data(
    name: str,
    *,
    path: Path | None = None,
    val_share: float = 0.15,
    test_share: float = 0.2,
    train_share: float = 1.0,
    split_seed: int = 0,
    shift: int = 0,
    flip: bool = False,
) -> SmallData:
    """A small data set by name.

    Args:
        name: "digits" or "fashion_mnist".
        path: Folder of its files; digits has none.
        val_share: Share of the training images set aside for validation, stratified by class.
        test_share: Share of all images set aside for testing, where the data set has no test split of its own.
        train_share: Share of the other images that is trained on, stratified by class.
        split_seed: Seed of all splits.
        shift: Training images are moved by up to this many pixels each way.
        flip: Training images are mirrored half of the time.

    Raises:
        InputError: Files are missing or damaged.
    """
    if name == "digits":
        data = digits(val_share=val_share, test_share=test_share, split_seed=split_seed)
    elif path is None:
        raise InputError(f"data.path is missing: {name} needs the folder of its files")
    else:
        data = fashion_mnist(path, val_share=val_share, split_seed=split_seed)
    if train_share < 1:
        _, some = stratified_split(data.train.labels.numpy(), train_share, split_seed)
        data = replace(data, train=SmallSplit(data.train.images[some], data.train.labels[some]))
    return replace(data, shift=shift, flip=flip)


def digits(*, val_share: float, test_share: float, split_seed: int) -> SmallData:
    """scikit-learn's 1,797 handwritten digits of 8x8 pixels, 10 classes."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    rest, test = stratified_split(labels, test_share, split_seed)
    train, val = stratified_split(labels[rest], val_share, split_seed)
    return _normalised(images, torch.tensor(labels), rest[train], rest[val], test)


def fashion_mnist(path: Path, *, val_share: float, split_seed: int) -> SmallData:
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
    """Indices of the rest and of the share, with each class in both in proportion, in ascending order.

    Raises:
        InputError: There are too few images for that.
    """
    from sklearn.model_selection import train_test_split

    try:
        rest, part = train_test_split(np.arange(len(labels)), test_size=share, stratify=labels, random_state=seed)
    except ValueError as error:
        raise InputError(f"{len(labels)} images cannot be split at a share of {share}: {error}") from None
    return np.sort(rest), np.sort(part)


def _normalised(
    images: Tensor, labels: Tensor, train: NDArray[np.int64], val: NDArray[np.int64], test: NDArray[np.int64]
) -> SmallData:
    """The splits, with the training images' mean and standard deviation taken out of all."""
    std, mean = (float(value) for value in torch.std_mean(images[train]))
    images = (images - mean) / std
    train_split, val_split, test_split = (SmallSplit(images[index], labels[index]) for index in (train, val, test))
    return SmallData(train_split, val_split, test_split, int(labels.max()) + 1, (mean,), (std,))

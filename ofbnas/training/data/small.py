"""Small data sets, kept in memory: scikit-learn's digits, Fashion-MNIST."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ofbnas.errors import InputError
from ofbnas.parallel import Shard
from ofbnas.training.data.base import Batches, Data, Epoch, rand_augment_of
from ofbnas.training.data.idx import read_fashion_mnist
from ofbnas.training.data.shifts import augment
from ofbnas.training.data.stratified import stratified_split

ALL = Shard()
# Size of the images (channels, height, width).
SIZES = {"digits": (1, 8, 8), "fashion_mnist": (1, 28, 28)}
CLASS_NAMES = {
    "digits": tuple("0123456789"),
    "fashion_mnist": (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
        "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class SmallSplit:
    """Images [count, channels, height, width], normalised, and labels [count]."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def batches(
        self,
        size: int,
        shard: Shard = ALL,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The shard's images in order, each once; the last batch may be smaller."""
        mine = shard.of(len(self))
        images = self.images[mine].split(size)
        labels = self.labels[mine].split(size)
        yield from zip(images, labels, strict=True)

    def to(self, device: torch.device | str) -> Self:
        """The split on a device."""
        images = self.images.to(device)
        labels = self.labels.to(device)
        return type(self)(images, labels)


@dataclass(frozen=True, repr=False)
class SmallData(Data):
    """A data set in memory.

    Attributes:
        train: Training split.
        val: Validation split, which decisions use.
        test: Test split, which results are reported on.
        num_classes: Number of classes.
        mean: Mean per channel, for pixels in 0 to 1, that images were normalised with.
        std: Standard deviation per channel, for pixels in 0 to 1, that images were normalised with.
        shift: Training images are shifted by up to this many pixels in each direction.
        flip: Whether training images are mirrored with probability one half.
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
    def resizing(self) -> tuple[str, float]:
        """How test images are resized: they have the model's size, so not at all."""
        return "bilinear", 1.0

    @property
    def device(self) -> torch.device:
        """The device of the images."""
        return self.train.images.device

    @property
    def train_images(self) -> int:
        """Number of training images."""
        return len(self.train)

    def to(self, device: torch.device | str) -> SmallData:
        """The data set on a device."""
        return replace(
            self,
            train=self.train.to(device),
            val=self.val.to(device),
            test=self.test.to(device),
        )

    def shuffled(self, size: int, epoch: Epoch) -> Batches:
        """One epoch of augmented training batches.

        Shifts and flips are drawn for whole batches, so they do not depend on the number of shards.
        """
        indices = epoch.order(len(self.train)).to(self.device)
        # Its rank makes it different from the generator of the order, which has rank 0.
        generator = epoch.generator(self.device, rank=1)
        batches = indices.split(size)
        for batch in batches[: self.num_batches(size)]:
            part = epoch.shard.of(len(batch))
            mine = batch[part]
            images = self.train.images[mine]
            if epoch.rand_augment is not None:
                images = self._rand_augmented(images, epoch.rand_augment)
            images = augment(
                images,
                self.shift,
                self.flip,
                generator,
                len(batch),
                part,
            )
            yield images, self.train.labels[mine]

    def _rand_augmented(self, images: Tensor, description: str) -> Tensor:
        """Images after timm's RandAugment, which works on bytes and on the CPU."""
        mean = self.mean[0]
        std = self.std[0]
        transform = rand_augment_of(description, round(255 * mean))
        pixels = (images * std + mean) * 255
        # [batch, height, width], as PIL has no dimension for the channel of grey images.
        as_bytes = pixels.round().clamp(0, 255).byte().squeeze(1)

        augmented: list[NDArray[np.uint8]] = []
        for image in as_bytes.cpu().numpy():
            result = transform(Image.fromarray(image))
            augmented.append(np.asarray(result))

        stacked = torch.from_numpy(np.stack(augmented)).to(images.device)
        floats = stacked.unsqueeze(1).float() / 255
        return (floats - mean) / std


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
        test_share: Share of all images set aside for testing, stratified by class, where the data
            set has no test split of its own.
        train_share: Share of the remaining training images to train on, stratified by class.
        split_seed: Random seed of all splits.
        shift: Training images are shifted by up to this many pixels in each direction.
        flip: Whether training images are mirrored with probability one half.

    Raises:
        InputError: Files are missing or damaged.
    """
    if name == "digits":
        data = digits(
            val_share=val_share,
            test_share=test_share,
            split_seed=split_seed,
        )
    elif path is None:
        raise InputError(f"data.path is missing: {name} needs the folder of its files")
    else:
        data = fashion_mnist(path, val_share=val_share, split_seed=split_seed)
    if train_share < 1:
        labels = data.train.labels
        _, used = stratified_split(labels.numpy(), train_share, split_seed)
        train = SmallSplit(data.train.images[used], labels[used])
        data = replace(data, train=train)
    return replace(data, shift=shift, flip=flip)


def digits(
    *,
    val_share: float,
    test_share: float,
    split_seed: int,
) -> SmallData:
    """scikit-learn's 1,797 handwritten digits of 8x8 pixels, 10 classes."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    flat = torch.tensor(pixels, dtype=torch.float32)
    images = flat.view(-1, *SIZES["digits"]) / 16  # grey levels are 0 to 16
    rest, test = stratified_split(labels, test_share, split_seed)
    train, val = stratified_split(labels[rest], val_share, split_seed)
    return _normalised(
        images,
        torch.tensor(labels),
        rest[train],
        rest[val],
        test,
    )


def fashion_mnist(
    path: Path,
    *,
    val_share: float,
    split_seed: int,
) -> SmallData:
    """Fashion-MNIST: 28x28 pixels, 10 classes, 60,000 training images and 10,000 test images.

    Args:
        path: Folder with the four .gz files of the original distribution.
        val_share: Share of the training images set aside for validation, stratified by class.
        split_seed: Random seed of that split.

    Raises:
        InputError: A file is missing or is not a file of this data set.
    """
    files = read_fashion_mnist(path)
    labels = files.labels
    num_train = files.num_train
    train, val = stratified_split(labels[:num_train], val_share, split_seed)
    test = np.arange(num_train, len(labels))
    images = torch.from_numpy(files.pixels).unsqueeze(1).float() / 255
    return _normalised(
        images,
        torch.from_numpy(labels),
        train,
        val,
        test,
    )


def _normalised(
    images: Tensor,
    labels: Tensor,
    train: NDArray[np.int64],
    val: NDArray[np.int64],
    test: NDArray[np.int64],
) -> SmallData:
    """A data set of normalised images, by mean and standard deviation of the training images.

    Args:
        images: Pixels in 0 to 1, [count, channels, height, width].
        labels: Classes, [count].
        train: Indices of the images for training.
        val: Indices of those for validation.
        test: Indices of those for testing.
    """
    std_tensor, mean_tensor = torch.std_mean(images[train])
    std = float(std_tensor)
    mean = float(mean_tensor)
    images = (images - mean) / std
    return SmallData(
        train=SmallSplit(images[train], labels[train]),
        val=SmallSplit(images[val], labels[val]),
        test=SmallSplit(images[test], labels[test]),
        num_classes=int(labels.max()) + 1,
        mean=(mean,),
        std=(std,),
    )

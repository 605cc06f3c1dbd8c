"""Splits, augmentation and files."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from ofbnas.errors import InputError
from ofbnas.training.data import Epoch, load_data, load_test
from ofbnas.training.data.idx import FASHION_MNIST_FILES, read_idx
from ofbnas.training.data.shifts import augment


def test_digits_are_split_by_seed_and_stratified():
    data, again, other = load_data("digits"), load_data("digits"), load_data("digits", split_seed=1)
    assert len(data.train) + len(data.val) + len(data.test) == 1797
    assert torch.equal(data.test.images, again.test.images)
    assert not torch.equal(data.test.labels, other.test.labels)
    shares = [
        torch.bincount(split.labels) / len(split) for split in (data.train, data.val, data.test)
    ]
    assert (shares[0] - shares[2]).abs().max() < 0.01


def test_splits_share_no_image():
    data = load_data("digits")
    rows = [
        {tuple(image.flatten().tolist()) for image in s.images}
        for s in (data.train, data.val, data.test)
    ]
    assert not rows[0] & rows[2] and not rows[1] & rows[2]


def test_training_images_are_normalised():
    images = load_data("digits").train.images
    assert images.mean().abs() < 1e-5
    assert images.std() == pytest.approx(1, abs=1e-3)


def test_an_epoch_has_its_own_order_which_comes_back():
    data = load_data("digits", shift=1)
    first, again, second = (list(data.shuffled(64, Epoch(0, epoch))) for epoch in (0, 0, 1))
    assert len(first) == data.num_batches(64) == 1221 // 64
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0][1], second[0][1])


def test_shifts_move_images_and_repeat_their_edges():
    images = torch.arange(16.0).view(1, 1, 4, 4).repeat(64, 1, 1, 1)
    moved = augment(images, 1, False, torch.Generator().manual_seed(0))
    rows, columns = torch.arange(4)[:, None], torch.arange(4)
    expected = {
        tuple(images[0, 0][(rows + dy).clamp(0, 3), (columns + dx).clamp(0, 3)].flatten().tolist())
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
    }
    assert {tuple(image.flatten().tolist()) for image in moved} == expected


def test_flips_mirror_half_of_the_images():
    images = torch.arange(4.0).view(1, 1, 1, 4).repeat(1000, 1, 1, 1)
    mirrored = augment(images, 0, True, torch.Generator().manual_seed(0))[:, 0, 0, 0] == 3
    assert 400 < mirrored.sum() < 600


def write_idx(path, array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    with gzip.open(path, "wb") as file:
        file.write(header + array.astype(np.uint8).tobytes())


def test_fashion_mnist_is_read_from_its_files(tmp_path):
    rng = np.random.default_rng(0)
    for (split, part), name in FASHION_MNIST_FILES.items():
        count = {"train": 200, "t10k": 50}[split]
        array = (
            rng.integers(0, 256, (count, 28, 28))
            if part == "images-idx3"
            else np.arange(count) % 10
        )
        write_idx(tmp_path / name, array)
    data = load_data("fashion_mnist", path=str(tmp_path), val_share=0.1)
    assert [len(s) for s in (data.train, data.val, data.test)] == [180, 20, 50]
    assert data.test.labels.tolist() == [i % 10 for i in range(50)]
    assert data.train.images.shape == (180, 1, 28, 28)


@pytest.mark.parametrize("load", [load_data, load_test])
@pytest.mark.parametrize("as_given", [str, Path])
def test_a_path_may_be_text(load, as_given, tmp_path):
    with pytest.raises(InputError, match="nowhere: no such folder"):
        load("folder", path=as_given(tmp_path / "nowhere"), num_classes=3)


def test_a_missing_folder_names_the_files_it_should_have(tmp_path):
    with pytest.raises(
        InputError, match=r"no such file.*train-images-idx3-ubyte\.gz.*dataset-fashion-mnist"
    ):
        load_data("fashion_mnist", path=tmp_path / "nowhere")


@pytest.mark.parametrize(
    "content",
    [b"", b"no gzip at all", gzip.compress(b"\x00\x00\x0d\x01"), "short"],
    ids=["empty", "no gzip", "another kind", "short"],
)
def test_damaged_files_are_refused(tmp_path, content):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    if content == "short":
        write_idx(path, np.zeros((3, 4)))
        content = gzip.compress(gzip.decompress(path.read_bytes())[:-1])
    path.write_bytes(content)
    with pytest.raises(InputError, match="IDX|its header promises an array"):
        read_idx(path)


def test_unknown_data_sets_are_named():
    with pytest.raises(InputError, match="cifar is unknown, expected one of digits, fashion_mnist"):
        load_data("cifar")

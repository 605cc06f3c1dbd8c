"""Images on disk, read through timm: a folder, a Hugging Face data set, a WebDataset; real files of each."""

from __future__ import annotations

import io
import json
import os
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from ofbnas.errors import InputError
from ofbnas.parallel import Shard
from ofbnas.training.data import Epoch, load_data

CLASSES, TRAIN, VAL, TEST = 3, 8, 2, 5
SPLITS = {"train": TRAIN, "validation": VAL, "test": TEST}
ALONE = Shard()


def picture(label: int, number: int) -> Image.Image:
    """A 40 x 30 picture that is identified by its brightness."""
    rng = np.random.default_rng(100 * label + number)
    level = 40 + 20 * number
    pixels = np.full((30, 40, 3), level, dtype=np.uint8) + rng.integers(
        0, 9, (30, 40, 3), dtype=np.uint8
    )
    pixels[..., label] //= 2
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    for split, count in SPLITS.items():
        for label in range(CLASSES):
            place = root / split / f"class_{label}"
            place.mkdir(parents=True)
            for number in range(count):
                picture(label, number).save(place / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """A WebDataset: tar files with images and labels, and the metadata that timm needs."""
    root = tmp_path_factory.mktemp("shards")
    splits = {}
    for split, count in SPLITS.items():
        names = []
        for label in range(CLASSES):
            names.append(f"{split}-{label}.tar")
            with tarfile.open(root / names[-1], "w") as tar:
                for number in range(count):
                    stream = io.BytesIO()
                    picture(label, number).save(stream, "PNG")
                    for ending, content in (
                        ("png", stream.getvalue()),
                        ("cls", str(label).encode()),
                    ):
                        info = tarfile.TarInfo(f"{label}_{number}.{ending}")
                        info.size = len(content)
                        tar.addfile(info, io.BytesIO(content))
        splits[split] = {
            "name": split, "num_samples": count * CLASSES, "filenames": names, "shard_lengths": [count] * CLASSES,
        }  # fmt: skip
    (root / "_info.json").write_text(json.dumps({"splits": splits}))
    return root


@pytest.fixture(scope="module")
def parquet(tmp_path_factory):
    """A Hugging Face data set of Parquet files."""
    datasets = pytest.importorskip("datasets")
    root = tmp_path_factory.mktemp("parquet")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=CLASSES)}
    )
    for split, count in SPLITS.items():
        pairs = [(label, number) for label in range(CLASSES) for number in range(count)]
        rows = {"image": [picture(*pair) for pair in pairs], "label": [label for label, _ in pairs]}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(
            root / f"{split}-00000.parquet"
        )
    return root


def opened(name, path, **settings):
    splits = {"val_split": "validation", "test_split": "test"}
    return load_data(
        name,
        path=path,
        **{"num_classes": CLASSES, "workers": 2, "image_size": (3, 32, 32)} | splits | settings,
    )


@pytest.fixture(params=["folder", "hfds", "wds"])
def data(request):
    if request.param == "folder":
        return opened("folder", request.getfixturevalue("folder"))
    if request.param == "hfds":
        return opened(f"hfds/{request.getfixturevalue('parquet')}", None)
    return opened("wds/made", request.getfixturevalue("shards"))


def seen(data, shard=ALONE):
    """Brightness and label of each test image."""
    batches = list(data.test.batches(4, shard))
    brightness = [round(image.mean().item(), 4) for images, _ in batches for image in images]
    return list(zip(brightness, torch.cat([labels for _, labels in batches]).tolist(), strict=True))


def test_no_more_processes_read_images_than_there_are_cpus(folder, recwarn):
    data = opened("folder", folder, workers=(os.cpu_count() or 1) + 1)
    assert len(seen(data)) == CLASSES * TEST
    assert not recwarn.list, "torch warns of more"


def test_every_image_is_tested_once_for_any_number_of_processes(data):
    assert len(data.test) == CLASSES * TEST and data.train_images == CLASSES * TRAIN
    whole = sorted(seen(data))
    assert sorted(label for _, label in whole) == sorted(list(range(CLASSES)) * TEST)
    for world in (2, 4):
        assert (
            sorted(pair for rank in range(world) for pair in seen(data, Shard(rank, world)))
            == whole
        )


def test_training_batches_follow_seed_and_epoch(data):
    first, again, second = (list(data.shuffled(6, Epoch(1, number))) for number in (0, 0, 1))
    assert len(first) == data.num_batches(6) == 4
    assert first[0][0].shape == (6, 3, 32, 32) and first[0][1].dtype == torch.int64
    for (images, labels), (same_images, same_labels) in zip(first, again, strict=True):
        assert torch.equal(images, same_images) and torch.equal(labels, same_labels)
    assert not torch.equal(first[0][0], second[0][0])


def test_processes_share_a_batch_and_repeats_stand_together(data):
    parts = [
        next(iter(data.shuffled(8, Epoch(repeats=2, shard=Shard(rank, 2))))) for rank in range(2)
    ]
    assert [len(labels) for _, labels in parts] == [4, 4]
    images, labels = next(iter(data.shuffled(8, Epoch(repeats=2, rand_augment="rand-m9-mstd0.5"))))
    assert (labels[::2] == labels[1::2]).all() and not torch.equal(images[::2], images[1::2])


def test_training_and_validation_share_no_image(folder):
    data = opened("folder", folder, val_split=None, val_share=0.25)
    assert (data.train_images, len(data.val), len(data.test)) == (18, 6, 15)
    assert sorted(torch.cat([labels for _, labels in data.val.batches(2)]).tolist()) == [
        0,
        0,
        1,
        1,
        2,
        2,
    ]


def test_images_are_normalised(folder):
    plain = next(opened("folder", folder, mean=(0, 0, 0), std=(1, 1, 1)).test.batches(4))[0]
    shifted = next(opened("folder", folder, mean=(0.5, 0, 0), std=(2, 1, 1)).test.batches(4))[0]
    torch.testing.assert_close(shifted[:, 0], (plain[:, 0] - 0.5) / 2)
    torch.testing.assert_close(shifted[:, 1], plain[:, 1])


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("folder", {"path": None}, "data.path is missing"),
        (
            "folder",
            {"path": "nowhere"},
            r"nowhere: no such folder; give the folder that holds train/",
        ),
        ("folder", {"num_classes": 5}, "train has 3 classes, data.num_classes is 5"),
        ("folder", {"train_images": 99}, "holds 24 training images, data.train_images is 99"),
        ("folder", {"val_split": None, "val_share": 0.01}, "cannot be split at a share of 0.01"),
        ("tfds/mnist", {}, "needs the package tensorflow_datasets: pip install"),
        ("wds/made", {"val_split": None}, "data.val_split is missing"),
        ("wds/made", {"test_split": "last"}, "split last.*cannot be read"),
    ],
)
def test_what_is_not_as_promised_is_refused(folder, shards, tmp_path, name, changes, message):
    path = changes.pop("path", shards if name.startswith("wds") else folder)
    with pytest.raises(InputError, match=message):
        opened(name, tmp_path / path if isinstance(path, str) else path, **changes)

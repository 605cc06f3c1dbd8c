"""Splits are what their names say: no image is in two of them, and labels mean the same."""

from __future__ import annotations

import json
import os
import shutil
import tarfile

import pytest
import torch
from commands import ofbnas
from conftest import ROOT
from test_images import picture
from timm.data import dataset_factory

from ofbnas.errors import InputError
from ofbnas.training.data import load_data, load_test
from ofbnas.training.data.splits import OF_TWO_SPLITS, SYNONYMS, check_names, split_path

CLASSES = ("cat", "dog")


def images(root, split, classes=CLASSES, first=0, count=3):
    """A split of a few pictures of each class, numbered from `first`."""
    for label, name in enumerate(classes):
        (root / split / name).mkdir(parents=True)
        for number in range(first, first + count):
            picture(label, number).save(root / split / name / f"{number}.png")
    return root / split


@pytest.fixture
def root(tmp_path):
    """Three splits without common images."""
    for index, split in enumerate(("train", "val", "test")):
        images(tmp_path / "images", split, first=3 * index)
    return tmp_path / "images"


def opened(root, **settings):
    splits = {"val_split": "val", "test_split": "test"} | settings
    return load_data(
        "folder", path=root, num_classes=2, workers=1, image_size=(3, 32, 32), **splits
    )


def test_splits_that_have_nothing_in_common_are_opened(root):
    data = opened(root)
    assert (data.train_images, len(data.val), len(data.test)) == (6, 6, 6)


@pytest.mark.parametrize(
    ("kept", "settings"),
    [
        (("train", "test"), {"val_split": None, "test_split": "validation"}),
        (("train", "test"), {}),
        (("train",), {"val_split": None, "test_split": "validation"}),
        (("train", "val", "test"), {"test_split": "tset"}),
        (("train", "val", "test"), {"train_split": "tain"}),
        (("train", "val", "test"), {"test_split": "test[:50%]"}),
        (("val", "test"), {}),
    ],
)
def test_a_split_without_a_folder_is_refused_and_not_taken_from_all_images(root, kept, settings):
    """timm would read the whole folder, training images included, and exit with 0."""
    for split in {"train", "val", "test"} - set(kept):
        shutil.rmtree(root / split)
    with pytest.raises(
        InputError,
        match=r"has no folder for the split .*, expected .*test_split and val_split name",
    ):
        opened(root, **settings)


@pytest.mark.parametrize(
    "split", ["/tmp", "../elsewhere", "train/../test", ".", "", "a\\b", "test\0"]
)
def test_a_split_lies_in_its_folder(root, split):
    images(root.parent, "elsewhere")
    with pytest.raises(InputError, match="is not the name of a folder in data.path"):
        opened(root, test_split=split)


def test_names_that_mean_the_same_are_those_of_timm(tmp_path):
    assert [dict.fromkeys(group) for group in SYNONYMS] == [
        dataset_factory._TRAIN_SYNONYM,
        dataset_factory._EVAL_SYNONYM,
    ]
    assert set(OF_TWO_SPLITS) == {*dataset_factory._TORCH_BASIC_DS, "qmnist"}
    for group in SYNONYMS:
        for there in group:
            (tmp_path / there).mkdir()
            for asked in group:
                found = dataset_factory._search_split(str(tmp_path), asked)
                assert str(split_path(tmp_path, asked)) == found == str(tmp_path / there)
            (tmp_path / there).rmdir()


def link_split(root):
    shutil.rmtree(root / "test")
    (root / "test").symlink_to(root / "val")


def link_class(root):
    shutil.rmtree(root / "test" / "cat")
    (root / "test" / "cat").symlink_to(root / "train" / "cat")


def link_image(root):
    (root / "test" / "dog" / "6.png").unlink()
    (root / "test" / "dog" / "6.png").symlink_to(root / "train" / "dog" / "1.png")


def link_training_image(root):
    (root / "train" / "dog" / "x.png").symlink_to(root / "val" / "dog" / "4.png")


def hard_link(root):
    os.link(root / "train" / "cat" / "2.png", root / "val" / "cat" / "2.png")


@pytest.mark.parametrize(
    "share", [link_split, link_class, link_image, link_training_image, hard_link]
)
def test_splits_that_share_a_file_are_refused(root, share):
    share(root)
    with pytest.raises(
        InputError, match=r"^the splits \w+ and \w+ share .*\.png: .*give each split its own files$"
    ):
        opened(root)


@pytest.mark.parametrize(
    "settings",
    [
        {"test_split": "train"},
        {"test_split": "training"},
        {"test_split": "val"},
        {"test_split": "validation"},
        {"val_split": None, "test_split": "train"},
        {"val_split": None, "train_split": "validation", "test_split": "eval"},
        {"train_split": "all", "val_split": None, "test_split": "all/test"},
    ],
)
def test_a_split_that_is_named_twice_is_refused(root, settings):
    if settings.get("train_split") == "all":
        images(root, "all/train")
        images(root, "all/test", first=3)
    with pytest.raises(InputError, match="are the same images of folder|share .*png"):
        opened(root, **settings)


@pytest.mark.parametrize("val", [("cat", "dot"), ("dog", "eel"), ("Cat", "dog")])
def test_splits_with_other_classes_are_refused(root, val):
    """A label is the index of a class among the classes of its split."""
    shutil.rmtree(root / "val")
    images(root, "val", classes=val, first=3)
    with pytest.raises(
        InputError, match="the splits (val|train) and (val|train) do not have the same classes"
    ):
        opened(root)


def test_a_class_that_a_split_lacks_is_refused(root):
    shutil.rmtree(root / "val" / "cat")
    with pytest.raises(InputError, match="val has 1 classes, data.num_classes is 2"):
        opened(root)


def test_pipes_among_images_are_not_waited_for(root):
    os.mkfifo(root / "test" / "cat" / "pipe.png")
    with pytest.raises(InputError, match=r"pipe.png: is not a regular file"):
        opened(root)
    with pytest.raises(InputError, match=r"pipe.png: is not a regular file"):
        load_test("folder", path=root, num_classes=2, test_split="test")
    (root / "test" / "cat" / "pipe.png").unlink()
    (root / "test" / "cat" / "gone.png").symlink_to(root / "nothing")
    with pytest.raises(InputError, match=r"gone.png: cannot be read"):
        opened(root)


def pack(root, split):
    """Pack a split's folder into a .tar file."""
    with tarfile.open(root / f"{split}.tar", "w") as tar:
        tar.add(root / split, arcname="")
    shutil.rmtree(root / split)


def test_a_split_may_be_a_tar_file(root):
    before = opened(root)
    expected = [
        [torch.cat(parts) for parts in zip(*split.batches(3), strict=True)]
        for split in (before.val, before.test)
    ]
    for split in ("train", "val", "test"):
        pack(root, split)
    after = opened(root)
    for split, (images_before, labels) in zip((after.val, after.test), expected, strict=True):
        images_after, same = (torch.cat(parts) for parts in zip(*split.batches(3), strict=True))
        assert torch.equal(same, labels) and torch.equal(images_after, images_before)
    drawn = opened(root, val_split=None, val_share=0.34)
    assert (drawn.train_images, len(drawn.val)) == (3, 3)
    (root / "val.tar").unlink()
    (root / "val.tar").symlink_to(root / "test.tar")
    with pytest.raises(InputError, match=r"share .*test.tar|share .*val.tar"):
        opened(root)


def test_a_split_to_report_needs_no_other(root):
    whole = opened(root).test
    for split in ("train", "val"):
        shutil.rmtree(root / split)
    alone = load_test(
        "folder",
        path=root,
        num_classes=2,
        test_split="test",
        image_size=(3, 32, 32),
        workers=1,
        train_images=99,
        val_split="x",
    )
    for (one, labels), (other, same) in zip(whole.batches(4), alone.batches(4), strict=True):
        assert torch.equal(one, other) and torch.equal(labels, same)
    assert torch.equal(
        load_test("digits", split_seed=1).images, load_data("digits", split_seed=1).test.images
    )


@pytest.mark.parametrize(
    ("name", "splits", "fit"),
    [
        ("hfds/x", ("train", "test", None), True),
        ("hfds/x", ("train", "train", None), False),
        ("hfds/x", ("train", "test", "test"), False),
        ("hfds/x", ("train[:80%]", "test", "train[80%:]"), True),
        ("hfds/x", ("train[:81%]", "test", "train[80%:]"), False),
        ("hfds/x", ("train[:-10%]", "test", "train[-10%:]"), True),
        ("hfds/x", ("train[:1000]", "test", "train[1000:]"), True),
        ("hfds/x", ("train[:-5]", "test", "train[-5:]"), True),
        ("hfds/x", ("train[:10%]", "test", "train[1000:]"), False),
        ("hfds/x", ("train", "test", "train[80%:]"), False),
        ("hfds/x", ("train+test", "test", None), False),
        ("hfds/x", ("train + extra", "test", "validation"), True),
        ("tfds/x", ("train[:1shard]", "test", "train[1shard:]"), False),
        ("wds/x", ("train", "validation", "validation"), False),
        ("torch/cifar10", ("train", "test", None), True),
        ("torch/cifar10", ("train", "test", "validation"), False),
        ("torch/cifar10", ("Train", "test", None), False),
        ("torch/imagenet", ("train", "val", "validation"), False),
    ],
)
def test_a_split_is_named_once(name, splits, fit):
    named = {
        field: split
        for field, split in zip(("train", "test", "val"), splits, strict=True)
        if split is not None
    }
    if fit:
        check_names(name, named)
        return
    with pytest.raises(
        InputError,
        match=f"are the same images of {name}, at least in part; give each its own split",
    ):
        check_names(name, named)


def test_shards_that_two_splits_list_are_refused(tmp_path):
    pytest.importorskip("webdataset")
    (tmp_path / "a.tar").write_bytes(bytes(10_240))
    listed = {"num_samples": 4, "filenames": ["a.tar"], "shard_lengths": [4]}
    splits = {name: {"name": name, **listed} for name in ("train", "validation", "test")}
    (tmp_path / "_info.json").write_text(json.dumps({"splits": splits}))
    with pytest.raises(InputError, match=r"the splits \w+ and \w+ share .*a.tar"):
        load_data(
            "wds/made", path=tmp_path, num_classes=2, val_split="validation", test_split="test"
        )


def test_a_reader_that_timm_does_not_have_is_refused(root):
    """timm would take the name for that of a folder."""
    with pytest.raises(InputError, match="data.name hdfs/x: is unknown, expected folder or hfds/"):
        load_data("hdfs/x", path=root, num_classes=2)


def test_a_study_is_refused_before_its_parent_is_trained(root, tmp_path, monkeypatch):
    monkeypatch.setenv("OFBNAS_CACHE", str(tmp_path / "cache"))
    shutil.rmtree(root / "val")
    changes = {
        "data.path": root,
        "data.num_classes": 2,
        "data.train_images": "null",
        "model.pretrained": "false",
    }
    changes |= {"pretrain": "{epochs: 1}", "data.workers": 1}
    settings = [word for field, value in changes.items() for word in ("--set", f"{field}={value}")]
    for words in (("study", "run"), ("study", "plan"), ("search",)):
        out = [] if words[-1] == "plan" else ["--output", tmp_path / "out"]
        done = ofbnas(*words, ROOT / "studies" / "deit_t.yaml", *settings, *out)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert "has no folder for the split validation, expected validation/ or val/" in done.stderr
    assert (
        not list(tmp_path.glob("cache/**/*.parent"))
        and not (tmp_path / "out" / "architectures").exists()
    )

"""Whenever the power is cut, a file has either all of its old content or all of its new content."""

from __future__ import annotations

import pytest
import torch
from conftest import DIGITS
from power import Disk, restore

from ofbnas.config.study_file import load_study
from ofbnas.errors import DamagedError
from ofbnas.files import durable
from ofbnas.files.weights import file_sha256
from ofbnas.models.subnet import load
from ofbnas.study.parent import untrained_parent
from ofbnas.study.trial import run_trial
from ofbnas.study.tuning.repair import repair
from ofbnas.table import store
from ofbnas.training.checkpoint import load_checkpoint, save_checkpoint


def shown(image):
    """A disk image without temporary files, whose final name is not there yet."""
    return {path: content for path, content in image.items() if durable.TEMPORARY not in path}


def test_a_name_stands_for_the_old_content_or_the_new(tmp_path):
    file = durable.write(tmp_path / "a" / "b" / "file", "old")
    disk = Disk(tmp_path)
    with disk.recorded():
        durable.write(file, "new", sealed=True)
    new = file.read_bytes()
    assert {shown(image)["a/b/file"] for image in disk.images} == {b"old", new}
    assert disk.images[-1] == disk.images[-2] == {"a/b/file": new}, (
        "on the disk once the call returns"
    )


def test_the_recorded_disk_loses_what_is_not_synced(tmp_path):
    """Checks the simulation itself: a write without a sync is lost, or leaves an empty file."""
    (tmp_path / "file").write_bytes(b"old")
    disk = Disk(tmp_path)
    with disk.recorded():
        (tmp_path / "beside").write_bytes(b"new")
        (tmp_path / "beside").replace(tmp_path / "file")
    assert {image["file"] for image in disk.images} == {b"old", b""}


def test_new_folders_are_there_after_the_call(tmp_path):
    disk = Disk(tmp_path)
    with disk.recorded():
        durable.write(tmp_path / "a" / "b" / "file", "new")
    assert disk.images[-2] == disk.images[-1] == {"a/b/file": b"new"}
    assert all(image.get("a/b/file") in (None, b"new") for image in map(shown, disk.images))


def test_a_folder_appears_with_all_its_files(tmp_path):
    disk = Disk(tmp_path)
    with disk.recorded():
        beside = durable.temporary_path(tmp_path / "folder")
        (beside / "deep").mkdir(parents=True)
        (beside / "one").write_text("1")
        (beside / "deep" / "two").write_text("2")
        durable.rename(beside, tmp_path / "folder")
    whole = {"folder/one": b"1", "folder/deep/two": b"2"}
    assert all(shown(image) in ({}, whole) for image in disk.images)
    assert disk.images[-2] == disk.images[-1] == whole
    with pytest.raises(FileExistsError):
        durable.rename(tmp_path / "folder", tmp_path / "folder")


def test_what_fails_half_way_leaves_the_old_content(tmp_path):
    file = durable.write(tmp_path / "file", "old")
    with pytest.raises(TypeError), durable.writing(file) as half:
        half.write(b"new" + half)
    assert [(place.name, place.read_text()) for place in tmp_path.iterdir()] == [("file", "old")]


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "no seal"])
def test_damage_to_a_sealed_file_is_noticed(tmp_path, damage):
    file = durable.write(tmp_path / "file", b"content" * 100, sealed=True)
    assert durable.read_sealed(file) == b"content" * 100
    raw = bytearray(file.read_bytes())
    raw[300] ^= 1
    file.write_bytes(
        {"empty": b"", "cut": raw[:-1], "flipped": bytes(raw), "no seal": b"content" * 100}[damage]
    )
    with pytest.raises(DamagedError, match="is damaged"):
        durable.read_sealed(file)


def test_a_damaged_checkpoint_is_renamed_and_computed_again(tmp_path, caplog):
    save_checkpoint(tmp_path / "a.pt", {"tensor": torch.ones(3)}, "lr 1")
    (tmp_path / "a.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:-100])
    assert load_checkpoint(tmp_path / "a.pt", "lr 1") is None
    (aside,) = tmp_path.iterdir()
    assert aside.name.startswith("a.pt.damaged-") and aside.name in caplog.text
    save_checkpoint(tmp_path / "a.pt", {"tensor": torch.ones(3)}, "lr 1")
    assert load_checkpoint(tmp_path / "a.pt", "lr 1") is not None


def test_a_trial_loses_at_most_an_epoch_to_a_power_cut(data, tmp_path):
    """Files are always whole, and a checkpoint stays until the row and its weights are on the disk."""
    settings = [
        "search.epochs=2",
        "finetune.epochs=1",
        "model.kwargs.depth=1",
        "model.kwargs.embed_dim=16",
    ]
    study = load_study(DIGITS, [*settings, "sweep.params={}", "data.train_share=0.2"])
    parent = untrained_parent(study).model.state_dict()
    folder = tmp_path / "study"
    folder.mkdir()

    def run(place):
        return run_trial(study, {}, 0, place, data, parent)

    disk = Disk(folder)
    with disk.recorded():
        row = run(folder)
    row_file, checkpoint = "architectures/trial-00000.parquet", "checkpoints/trial-00000/search.pt"
    safe = False
    for number, image in enumerate(disk.images):
        place = restore(image, tmp_path / f"cut-{number}")
        safe = safe or checkpoint in shown(image)
        assert not safe or {row_file, checkpoint} & image.keys(), "what was on the disk is there"
        for left in place.rglob("*.pt"):
            durable.read_sealed(left)
        if row_file in image:
            found = store.read_row(place, 0)
            assert file_sha256(place / found.weights) == row.weights_sha256
            load(place / f"subnets/{row.arch_id}")
        elif checkpoint not in image:
            assert not shown(image).keys() - {"checkpoints/trial-00000/seconds.pt"}, (
                "nothing without a way to resume"
            )
    assert row_file in disk.images[-1] and row_file in disk.images[-2]

    resumable = [number for number, image in enumerate(disk.images) if row_file not in image]
    for number in (
        resumable[len(resumable) // 2],
        resumable[-1],
    ):  # in the search; with the subnet, before the row
        repair(place := tmp_path / f"cut-{number}")
        again = run(place)
        assert (again.arch_id, again.top1) == (row.arch_id, row.top1)
        assert not list(place.rglob(f"{durable.TEMPORARY}*"))

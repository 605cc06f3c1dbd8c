"""Training a study's parent: cached with a checksum, resumed, refused early if it cannot be cached."""

from __future__ import annotations

import pytest
import torch
from commands import ofbnas
from conftest import DIGITS
from events import Killed, Recorder
from running import write

from ofbnas.config.study_file import load_study
from ofbnas.errors import InputError
from ofbnas.files import durable
from ofbnas.study.parent import check_weights, parent_cache, trained_parent
from ofbnas.training import pretrain
from ofbnas.training.data import load_data

SETTINGS = [
    "model.kwargs.depth=1",
    "model.kwargs.embed_dim=16",
    "pretrain.epochs=3",
    "data.train_share=0.3",
]


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setenv("OFBNAS_CACHE", str(tmp_path / "cache"))
    return load_study(DIGITS, SETTINGS)


@pytest.fixture(scope="module")
def images():
    return load_data("digits", train_share=0.3, shift=1)


def train(study, images, killed_at=None):
    """Train a parent: its tensors, and the epochs that were run."""
    told = Recorder(killed_after=killed_at)
    tensors = trained_parent(study, images, [told]).model.state_dict()
    return tensors, [epoch for epoch, _ in told.epochs]


def same(one, other):
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_an_interrupted_training_is_resumed_and_then_cached(study, images, tmp_path, monkeypatch):
    with monkeypatch.context() as other:
        other.setenv("OFBNAS_CACHE", str(tmp_path / "other"))
        whole, _ = train(study, images)
    with pytest.raises(Killed):
        train(study, images, killed_at=2)
    again, epochs = train(study, images)
    assert epochs == [3] and same(whole, again)
    assert sorted(place.suffix for place in (tmp_path / "cache" / "parents").iterdir()) == [
        ".lock",
        ".parent",
    ]
    cached, epochs = train(study, images)
    assert epochs == [] and same(whole, cached)


def test_what_a_killed_training_left_half_written_is_removed_and_no_other_ones(study, images):
    file = parent_cache(study)
    file.parent.mkdir(parents=True)
    mine = [durable.temporary_path(file), durable.temporary_path(file.with_suffix(".training"))]
    another = durable.temporary_path(file.with_name("another.parent"))
    for half in (*mine, another):
        half.write_bytes(b"half")
    train(study, images)
    assert list(file.parent.glob(f"{durable.TEMPORARY}*")) == [another], (
        "another training may be writing its own"
    )


@pytest.mark.parametrize("damage", ["emptied", "twenty bytes flipped"])
def test_a_damaged_parent_is_renamed_and_trained_again(study, images, caplog, damage):
    whole, _ = train(study, images)
    file = parent_cache(study)
    raw = file.read_bytes()
    file.write_bytes(
        b""
        if damage == "emptied"
        else raw[:-900] + bytes(b ^ 1 for b in raw[-900:-880]) + raw[-880:]
    )
    again, epochs = train(study, images)
    assert epochs == [1, 2, 3] and same(whole, again) and file.read_bytes() == raw
    (aside,) = file.parent.glob("*.damaged-*")
    assert (
        f"{file.name}: is damaged" in caplog.text.replace(str(file.parent) + "/", "")
        and aside.name in caplog.text
    )


def test_a_parent_that_could_not_be_kept_is_refused_before_it_is_trained(
    study, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OFBNAS_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(
        InputError, match="the cache of parents cannot be written .*; set OFBNAS_CACHE"
    ):
        check_weights(study)
    refused = ofbnas("study", "run", write(tmp_path), "--output", tmp_path / "out")
    assert refused.returncode == 2 and "the cache of parents cannot be written" in refused.stderr
    assert not (tmp_path / "out").exists()


def test_a_parent_without_room_is_refused_before_it_is_trained(study, monkeypatch):
    monkeypatch.setattr(pretrain, "WEIGHTS_NEEDED", 10**12)
    with pytest.raises(
        InputError, match="GB free, and checkpoints of this model need .* GB; make room, or set"
    ):
        check_weights(study)


def test_a_teacher_without_weights_is_refused_before_the_parent_is_trained(tmp_path):
    (tmp_path / "teacher.safetensors").write_bytes(b"no weights")
    teacher = {"name": "vit_tiny_patch16_224", "checkpoint": str(tmp_path / "teacher.safetensors")}
    study = load_study(DIGITS, [f"search.distill.teacher={teacher}"])
    with pytest.raises(InputError, match="teacher.safetensors"):
        check_weights(study)

"""A study of a model by its name is the one that a YAML file would be."""

from __future__ import annotations

import json

import pytest
import timm
from conftest import KWARGS, NAME, make

from ofbnas.config.study_file import load_study
from ofbnas.errors import InputError
from ofbnas.study.of_model import study_of_model


@pytest.fixture
def folder(tmp_path):
    """A model as timm writes it for the Hub."""
    timm.models.save_for_hf(
        make(), str(tmp_path / "model"), model_args=KWARGS, safe_serialization=True
    )
    return tmp_path / "model"


def test_it_equals_the_study_of_a_file(tmp_path):
    (tmp_path / "study.yaml").write_text(f"""
name: deit_small_patch16_224
model: {{name: deit_small_patch16_224, pretrained: true}}
data: {{name: folder, path: {tmp_path}, num_classes: 1000, workers: 2}}
search: {{epochs: 0, budget: {{gmacs_share: 0.5}}}}
sweep: {{n_trials: 1}}
""")
    written = load_study(tmp_path / "study.yaml")
    named = study_of_model(
        "deit_small_patch16_224", data=str(tmp_path), settings=["data.workers=2"]
    )
    assert named == written


def test_a_folder_says_its_model_and_weights_and_how_its_images_are_read(folder, tmp_path):
    name = f"local-dir:{folder}"
    study = study_of_model(name, data=str(tmp_path))
    assert study.model.name == NAME
    assert study.model.kwargs["embed_dim"] == 16 and "num_classes" not in study.model.kwargs
    assert study.model.checkpoint == folder / "model.safetensors"
    assert study.data.num_classes == 10
    assert (
        study.data.mean
        == json.loads((folder / "config.json").read_text())["pretrained_cfg"]["mean"]
    )
    other = study_of_model(name, data="digits", checkpoint=tmp_path / "other.pth")
    assert other.model.checkpoint == tmp_path / "other.pth"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "names no architecture"),
        ("{", "is not JSON"),
        ('{"architecture": "deit_tiny_patch16_224", "model_args": 3}', "must be keys and values"),
        ('{"architecture": "deit_tiny_patch16_224"}', "has no weights"),
    ],
)
def test_a_damaged_folder_is_refused(folder, content, message):
    (folder / "config.json").write_text(content)
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=message):
        study_of_model(f"local-dir:{folder}", data="digits")

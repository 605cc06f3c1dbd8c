"""`ofbnas study new` writes a study that runs as it is."""

from __future__ import annotations

import pytest
import yaml
from commands import ofbnas, process
from photographs import write_pieces

import ofbnas as package
from ofbnas.config.commented import commented, sentence
from ofbnas.config.study_file import load_study

MODEL = "vit_tiny_patch16_224"
TINY = "model.kwargs={img_size: 32, patch_size: 8, embed_dim: 32, depth: 2, num_heads: 2}"
SHORT = {
    "pretrain.epochs": 2,
    "search.epochs": 2,
    "search.refine.candidates": 0,
    "search.compensation.images": 64,
    "sweep.n_trials": 1,
    "data.workers": 1,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with photographs, and the study of them."""
    place = tmp_path_factory.mktemp("new")
    write_pieces(place / "photos")
    done = ofbnas(
        "study", "new", MODEL, "--data", "photos", "-o", "p.yaml", "--set", TINY, cwd=place
    )
    assert done.returncode == 0 and done.stdout == "p.yaml\n", done.stderr
    assert "246 training images of 3 classes" in done.stderr
    return place


def test_it_says_what_the_model_and_the_folder_are(place):
    study = load_study(place / "p.yaml")
    assert study.data.path == place / "photos"
    assert (study.data.num_classes, study.data.train_images) == (3, 246)
    assert study.data.val_share == 0.2, "as much as is reasonable, as there are few images"
    assert study.data.mean == [0.5, 0.5, 0.5] and study.data.crop_pct == 0.9, "those of the model"
    assert study.model.kwargs["img_size"] == 32
    assert study.pretrain is not None, "timm's weights have 1,000 classes"


def test_each_field_has_its_sentence(place):
    text = (place / "p.yaml").read_text()
    words = " ".join(text.replace("#", " ").split())
    tree = yaml.safe_load(text)
    study = load_study(place / "p.yaml")
    described = {"": (tree, study), "data": (tree["data"], study.data)}
    described |= {name: (tree[name], getattr(study, name)) for name in ("model", "search", "sweep")}
    for keys, section in described.values():
        for key in keys:
            assert sentence(type(section).model_fields[key].description) in words, key


def test_the_sentences_change_nothing():
    tree = {
        "name": "a",
        "model": {"name": "m", "pretrained": True, "kwargs": {"a": None, "text": "[1, 2]"}},
        "data": {"name": "digits", "shift": 1},
        "search": {"epochs": 3, "budget": {"gmacs_share": 0.5}, "decide_by": 0.25},
        "sweep": {"n_trials": 2, "params": {"search.lr": {"low": 1e-4, "high": 1e-3, "log": True}}},
    }
    assert yaml.safe_load(commented(tree)) == tree


def test_nothing_is_overwritten(place):
    before = (place / "p.yaml").read_bytes()
    done = ofbnas("study", "new", MODEL, "--data", "photos", "-o", "p.yaml", cwd=place)
    assert done.returncode == 2 and "p.yaml: exists, and is not overwritten" in done.stderr
    assert (place / "p.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("model", "data", "more", "message"),
    [
        ("resnet18", "photos", [], "ResNet cannot be searched"),
        ("no_such_model", "photos", [], "nor a model of timm"),
        (MODEL, "nowhere", [], "--data nowhere: no such folder"),
        (MODEL, "photos/train", [], "has no folder for the split validation"),
        (MODEL, "photos", ["--num-classes", "9"], "photos has 3 classes"),
        (MODEL, "photos", ["--checkpoint", "none.pth"], "none.pth"),
        (MODEL, "photos", ["--set", "search.epoch=3"], "search.epoch"),
    ],
)
def test_what_cannot_be_a_study_is_refused_and_nothing_is_written(
    place, model, data, more, message
):
    done = ofbnas("study", "new", model, "--data", data, "-o", "x.yaml", *more, cwd=place)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert not (place / "x.yaml").exists()


def test_weights_of_the_models_own_are_used(place):
    """A folder that timm wrote says the weights; other classes than theirs are refused."""
    import timm

    kwargs = yaml.safe_load(TINY.partition("=")[2])
    model = timm.create_model(MODEL, num_classes=3, **kwargs)
    timm.models.save_for_hf(model, place / "mine", model_args=kwargs, safe_serialization=False)
    done = ofbnas("study", "new", "local-dir:mine", "--data", "photos", cwd=place)
    assert done.returncode == 0, done.stderr
    study = load_study(place / "local-dir-mine.yaml")
    assert study.model.checkpoint == place / "mine" / "pytorch_model.bin"
    assert study.pretrain is None and study.model.kwargs["embed_dim"] == 32
    done = ofbnas("study", "new", "local-dir:mine", "--data", "digits", "-o", "x.yaml", cwd=place)
    assert done.returncode == 2 and not (place / "x.yaml").exists()


@pytest.mark.slow
def test_it_is_planned_searched_and_run(place, monkeypatch, tmp_path):
    monkeypatch.setenv("OFBNAS_CACHE", str(tmp_path / "cache"))
    plan = ofbnas("study", "plan", "p.yaml", cwd=place)
    assert plan.returncode == 0 and "training images" in plan.stdout, plan.stderr
    short = [word for name, value in SHORT.items() for word in ("--set", f"{name}={value}")]
    search = ofbnas("search", "p.yaml", *short, cwd=place)
    assert search.returncode == 0, search.stderr
    done = process("study", "run", "p.yaml", *short, cwd=place)
    assert done.returncode == 0, done.stderr
    table = package.read_table(place / "runs" / MODEL)
    assert table["status"].tolist() == ["complete"]
    assert (table["gmacs"] <= 0.8 * table["parent_gmacs"]).all()

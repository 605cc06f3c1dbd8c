"""The ImageNet studies at full width: a few steps on a made-up folder of 224-pixel images."""

from __future__ import annotations

import json

import numpy as np
import pytest
import timm
import torch
from commands import ofbnas
from conftest import ROOT
from PIL import Image
from safetensors.torch import save_file

from ofbnas.config.study_file import load_study
from ofbnas.study.plan import plan

STUDIES = {
    "deit_t": ("deit_tiny_patch16_224", 1.254),
    "deit_s": ("deit_small_patch16_224", 4.599),
    "deit_b": ("deit_base_patch16_224", 17.56),
    "swin_t": ("swin_tiny_patch4_window7_224", 4.491),
    "swin_s": ("swin_small_patch4_window7_224", 8.741),
    "swin_b": ("swin_base_patch4_window7_224", 15.43),
}


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """Three classes of gratings: 3 images each to train on, and one to validate and to test."""
    root = tmp_path_factory.mktemp("imagenet")
    rng = np.random.default_rng(0)
    place = np.arange(256)
    for split, count in (("train", 3), ("val", 1), ("test", 1)):
        for label in range(3):
            folder = root / split / f"n{label:08d}"
            folder.mkdir(parents=True)
            for number in range(count):
                wave = np.sin(place[:, None] * (label + 1) / 9 + place * rng.uniform(0, 0.2))
                pixels = (127 + 90 * wave[..., None] + rng.normal(0, 12, (256, 256, 3))).clip(
                    0, 255
                )
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.JPEG")
    return root


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deit_t", "deit_b", "swin_t"])
def test_a_study_searches_at_real_width(imagenet, tmp_path, name):
    model, gmacs = STUDIES[name]
    torch.manual_seed(0)
    checkpoint = tmp_path / "deit.safetensors"
    save_file(timm.create_model(model, num_classes=3).state_dict(), checkpoint)
    few = {
        "data.path": imagenet,
        "data.num_classes": 3,
        "data.train_images": 9,
        "data.val_split": "validation",
        "data.test_split": "test",
        "data.workers": 1,
        "model.pretrained": "false",
        "model.checkpoint": checkpoint,
        "search.epochs": 1,
        "search.refine.candidates": 0,
        # Without instructions for bfloat16, a CPU takes ten times as long in it.
        "search.amp": "null",
        "finetune.amp": "null",
        "search.batch_size": 4,
        "search.accumulate": 2,
        "search.importance.start_batches": 1,
        "search.compensation.images": 2,
        "search.evaluate_every": 0,
        "finetune.evaluate_every": 0,
        "finetune.epochs": 1,
        "finetune.batch_size": 4,
        "finetune.accumulate": 2,
    }
    arguments = [part for field, value in few.items() for part in ("--set", f"{field}={value}")]
    done = ofbnas(
        "search",
        ROOT / "studies" / f"{name}.yaml",
        *arguments,
        "--output",
        tmp_path / "out",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    budget = json.loads(row["budget"])["gmacs"]
    assert row["parent_gmacs"] == pytest.approx(gmacs, rel=1e-3)  # less than with 1,000 classes
    assert 0.98 * budget <= row["gmacs"] <= budget
    assert (tmp_path / "out" / row["weights"]).is_file()


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.slow
def test_a_study_without_imagenet_is_planned_and_refused_with_what_to_do(tmp_path, name):
    study = ROOT / "studies" / f"{name}.yaml"
    found = plan(load_study(study))
    assert found["train_images"] == round(1_281_167 * 0.98) and not found["train_images_counted"]
    assert found["search_steps"] == 100 * (found["train_images"] // 1024)
    assert found["gmacs"]["full"] == pytest.approx(STUDIES[name][1], abs=0.01)
    refused = ofbnas("study", "run", study, "--output", tmp_path / "out")
    assert (
        refused.returncode == 2
        and "/data/imagenet: no such folder; give the folder that holds train/" in refused.stderr
    )
    assert not (tmp_path / "out").exists()


def test_the_memory_of_a_step_is_near_what_a_step_keeps():
    """Activations that a real forward pass keeps for one more image, against the estimate."""
    from ofbnas.study.plan import _saved_bytes

    model = timm.create_model("deit_tiny_patch16_224")
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    real = []
    for batch in (1, 2):
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(torch.randn(batch, 3, 224, 224)).sum()
        real.append(sum(tensor.untyped_storage().nbytes() for tensor in kept.values()))
    assert _saved_bytes(model, 2) - _saved_bytes(model, 1) == pytest.approx(
        real[1] - real[0], rel=0.25
    )

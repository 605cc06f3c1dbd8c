"""timm loads a saved network like any other model, with ofbnas.timm and with load.py alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from contracts import MEMBERS, cut, images_for, make
from safetensors.torch import load_file, save_file
from test_branches import KINDS
from test_stock import cut as cut_alike
from timm.data import resolve_data_config
from torch import nn

import ofbnas.timm  # noqa: F401 (registers the networks)
from ofbnas.errors import InputError
from ofbnas.models import load_alone
from ofbnas.models.architecture import Architecture
from ofbnas.models.axes import axes, input_size
from ofbnas.models.registry import names
from ofbnas.models.shrink import cut_to
from ofbnas.models.subnet import Subnet, load, save
from ofbnas.models.subnet_config import Images

IMAGES = Images(mean=(0.25,), std=(0.5,), interpolation="bilinear", crop_pct=1.0)


def written(model: nn.Module, kind: str, folder: Path) -> Path:
    """The folder of a model that was cut from a family's member."""
    member = MEMBERS[kind]
    sizes = {axis.name: axis.size for axis in axes(model, {})}
    save(Subnet(Architecture(member.name, member.kwargs, sizes), model), folder, images=IMAGES)
    return folder


def with_branches_gone(model: nn.Module) -> nn.Module:
    """A model without its second attention, and without its last block where blocks may go."""
    model_axes = axes(model, {})
    removable = [axis.name for axis in model_axes if axis.branch]
    attentions = [name for name in removable if name.endswith(".attn")]
    gone = {*removable[-2:], *attentions[1:2]}
    sizes = {axis.name: (0, 0) if axis.name in gone else axis.size for axis in model_axes}
    return cut_to(model, model_axes, sizes)


def in_timm(folder: Path, **kwargs) -> nn.Module:
    return timm.create_model(f"local-dir:{folder}", pretrained=True, **kwargs).eval()


@pytest.fixture(scope="module")
def small() -> nn.Module:
    """A Vision Transformer with fewer units and without some branches."""
    return with_branches_gone(cut(make(MEMBERS["vit"]), 0).model)


@pytest.fixture(scope="module")
def folder(small, tmp_path_factory) -> Path:
    return written(small, "vit", tmp_path_factory.mktemp("saved") / "subnet")


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_each_kind_is_the_same_in_timm_and_without_ofbnas(kind, tmp_path):
    small = with_branches_gone(cut(make(MEMBERS[kind]), 0).model).eval()
    folder = written(small, kind, tmp_path / "subnet")
    images = images_for(small)
    expected = small(images)
    for loaded in (in_timm(folder), load_alone.load(folder), load(folder).model):
        assert torch.equal(loaded(images), expected)
        assert tuple(loaded.pretrained_cfg["input_size"]) == input_size(loaded)
        features = loaded.forward_intermediates(images, intermediates_only=True)
        channels = [feature.shape[1] for feature in features]
        assert [stated["num_chs"] for stated in loaded.feature_info] == channels
        for name, module in loaded.named_modules():
            if isinstance(module, nn.Linear):
                assert (module.out_features, module.in_features) == module.weight.shape, name


@torch.no_grad()
def test_it_takes_timms_own_arguments(small, folder):
    images = images_for(small)
    embedding = in_timm(folder, num_classes=0)(images)
    assert embedding.shape == (2, small.num_features)
    assert torch.equal(small.head(embedding), small(images))
    assert in_timm(folder, num_classes=3)(images).shape == (2, 3)

    features = in_timm(folder, features_only=True, out_indices=2)
    channels = [feature.shape[1] for feature in features(images)]
    assert channels == features.feature_info.channels() == [small.num_features] * 2
    # Positions are resampled, and the first layer takes more channels, as timm does that.
    channels, height, width = input_size(small)
    larger = in_timm(folder, img_size=2 * height, in_chans=channels + 2)
    assert larger(torch.randn(1, channels + 2, 2 * height, 2 * width)).shape == (1, 10)
    assert in_timm(folder, drop_rate=0.5).head_drop.p == 0.5


def test_it_trains_with_checkpointed_gradients(small, folder):
    gradients = []
    for checkpointing in (False, True):
        model = in_timm(folder)
        model.set_grad_checkpointing(checkpointing)
        model.train()(images_for(small)).square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    torch.testing.assert_close(*gradients)


def test_it_says_how_its_images_are_prepared(small, folder):
    known = in_timm(folder).pretrained_cfg
    assert known["classifier"] == "head" and known["first_conv"] == "patch_embed.proj"
    assert known["num_classes"] == 10
    config = resolve_data_config(pretrained_cfg=known)
    assert config["input_size"] == input_size(small)
    assert (list(config["mean"]), list(config["std"])) == ([0.25], [0.5])
    assert (config["interpolation"], config["crop_pct"]) == ("bilinear", 1.0)
    # ofbnas keeps that when it loads the network and saves it again.
    again = load(folder).model.pretrained_cfg
    assert {key: again[key] for key in ("mean", "std")} == {"mean": (0.25,), "std": (0.5,)}


def test_fresh_weights_have_the_same_shapes(small, folder):
    fresh = timm.create_model(f"local-dir:{folder}", pretrained=False)
    shapes = {name: tensor.shape for name, tensor in small.state_dict().items()}
    assert {name: tensor.shape for name, tensor in fresh.state_dict().items()} == shapes


def test_weights_of_another_network_are_refused(small, folder, tmp_path):
    other = written(small, "vit", tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    tensors["norm.weight"] = tensors["norm.weight"][:-1].clone()
    save_file(tensors, other / "model.safetensors")
    with pytest.raises(RuntimeError, match=r"size mismatch for norm\.weight"):
        in_timm(other)
    config = json.loads((other / "config.json").read_text())
    config["model_args"]["sizes"]["embed"] = [1, 10**6]
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="expected sizes up to"):
        in_timm(other)


def test_by_itself_it_is_no_model():
    with pytest.raises(InputError, match=r"ofbnas_subnet is no model by itself.*local-dir:DIR"):
        timm.create_model("ofbnas_subnet")
    assert "ofbnas_subnet" in timm.list_models() and "ofbnas_subnet" not in names("*")


@pytest.mark.slow
def test_load_py_needs_no_ofbnas(small, folder):
    """In a process of its own, in which ofbnas cannot be imported; nor does timm, for blocks alike."""
    made = cut_alike()
    save(made, folder / "alike")
    images = images_for(small)
    with torch.no_grad():
        save_file({"images": images, "outputs": small(images)}, folder / "expected.st")
        some = images_for(made.model)
        save_file({"images": some, "outputs": made.model(some)}, folder / "alike" / "expected.st")
    program = """
import sys
sys.modules["ofbnas"] = None
import timm, torch
from safetensors.torch import load_file
from load import load

expected = load_file("expected.st")
with torch.no_grad():
    assert torch.equal(load()(expected["images"]), expected["outputs"])
expected = load_file("alike/expected.st")
stock = timm.create_model("local-dir:alike", pretrained=True).eval()
with torch.no_grad():
    assert torch.equal(stock(expected["images"]), expected["outputs"])
try:
    import ofbnas
except ImportError:
    print("the same")
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False
    )
    assert ran.stdout == "the same\n", ran.stderr

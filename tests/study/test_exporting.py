"""ofbnas arch export: files that compute what the network computes, without ofbnas."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from commands import PATIENCE, ofbnas
from conftest import ROOT, SPACE, make
from contracts import MEMBERS, images_for
from contracts import make as make_member
from torch import nn

from ofbnas.errors import ExportError
from ofbnas.models.axes import axes
from ofbnas.nas.plain import Network
from ofbnas.study.exporting import export_network, images_of
from ofbnas.study.networks import find_network
from ofbnas.training.data import load_data
from ofbnas.training.exported import Preprocessing, export, load_exported
from ofbnas.training.quantization import Int8, quantize

DIGITS = ROOT / "studies" / "tables" / "digits"
ARCH = "ae81"  # one of the smallest
SETTINGS = {"name": "digits", "shift": 1}
FRESH = """
import json, sys, torch
texts = {"preprocessing": "", "arch_id": ""}
network = torch.export.load(sys.argv[1], extra_files=texts).module()
outputs = network(torch.load(sys.argv[2]))
assert not {"ofbnas", "timm"} & set(sys.modules)
torch.save(outputs, sys.argv[3])
print(json.dumps([json.loads(texts["preprocessing"])["input_size"], texts["arch_id"]]))
"""


def exported(*args, cwd: Path) -> dict:
    done = ofbnas("arch", "export", DIGITS, "--arch", ARCH, *args, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def floats(tmp_path_factory) -> tuple[Path, dict]:
    """An ONNX file, and what the command printed of it."""
    folder = tmp_path_factory.mktemp("floats")
    return folder / "small.onnx", exported("-o", "small.onnx", cwd=folder)


@pytest.fixture(scope="module")
def static(tmp_path_factory) -> tuple[Path, dict]:
    """A file of 8-bit integers, and what the command printed of it and of the one of floats."""
    folder = tmp_path_factory.mktemp("static")
    result = exported("--int8", "static", cwd=folder)
    return folder / result["file"], result


def test_an_onnx_file_computes_the_network_on_batches_of_any_size(floats):
    file, result = floats
    in_torch, in_onnx = result["networks"]
    assert result["images"] == 360 and in_torch["network"] == "torch"
    assert in_onnx["top1"] == in_torch["top1"] > 90 and in_onnx["difference"] < 1e-5
    assert in_onnx["megabytes"] == file.stat().st_size / 1e6

    network = find_network(DIGITS, ARCH)
    data = load_data(**SETTINGS)
    session = onnxruntime.InferenceSession(file)
    for count in (1, 7):
        images = data.test.images[:count]
        (outputs,) = session.run(["outputs"], {"images": images.numpy()})
        expected = network.subnet.model(images).detach().numpy()
        np.testing.assert_allclose(outputs, expected, atol=1e-4)

    onnx.checker.check_model(file, full_check=True)
    texts = session.get_modelmeta().custom_metadata_map
    assert texts["arch_id"] == network.row.arch_id and texts["parent"] == network.row.model
    assert json.loads(texts["preprocessing"]) == {
        "input_size": [1, 8, 8],
        "mean": list(data.mean),
        "std": list(data.std),
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        "class_names": list("0123456789"),
    }
    assert b"site-packages" not in file.read_bytes(), "a path of this machine"


def test_a_pt2_file_computes_the_network_in_a_process_without_timm(tmp_path):
    result = exported("--format", "pt2", cwd=tmp_path)
    assert [each["network"] for each in result["networks"]] == ["torch", "pt2"]
    network = find_network(DIGITS, ARCH)
    images = load_data(**SETTINGS).test.images[:5]
    torch.save(images, tmp_path / "images.pt")
    files = [tmp_path / name for name in (result["file"], "images.pt", "outputs.pt")]
    done = subprocess.run(
        [sys.executable, "-c", FRESH, *files],
        capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[1, 8, 8], network.row.arch_id]
    torch.testing.assert_close(
        torch.load(files[2]), network.subnet.model(images), atol=1e-4, rtol=0
    )
    assert b"site-packages" not in files[0].read_bytes(), "a path of this machine"


def test_static_integers_are_calibrated_on_validation_images_and_measured_beside_floats(static):
    file, result = static
    in_torch, in_onnx, in_int8 = result["networks"]
    assert in_int8["network"] == "onnx int8 static" and in_onnx["difference"] < 1e-5
    assert in_int8["megabytes"] == file.stat().st_size / 1e6
    assert 1e-4 < in_int8["difference"] < 1 and in_int8["top1"] > in_torch["top1"] - 3
    model = onnx.load(file)
    kinds = {each.name: each.data_type for each in model.graph.initializer}
    in_layers = [
        node
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and kinds.get(node.input[0]) == onnx.TensorProto.INT8
    ]
    layers = [
        module
        for module in find_network(DIGITS, ARCH).subnet.model.modules()
        if isinstance(module, nn.Linear)
    ]
    assert len(in_layers) == len(layers), "every linear layer, and nothing else"
    assert "preprocessing" in {each.key for each in model.metadata_props}


def test_dynamic_integers_need_no_images(floats, tmp_path):
    file = tmp_path / "int8.onnx"
    quantize(floats[0], file, Int8.DYNAMIC, None)
    kinds = [node.op_type for node in onnx.load(file).graph.node]
    assert kinds.count("MatMulInteger") >= 8 and "Gemm" not in kinds
    images = load_data(**SETTINGS).test.images[:50]
    expected = load_exported(floats[0], 10)(images)
    difference = (load_exported(file, 10)(images) - expected).abs().max()
    assert 1e-4 < difference < 1


def check_export(model: nn.Module, images: torch.Tensor, file: Path) -> None:
    model.requires_grad_(False)
    prepared = Preprocessing(tuple(images.shape[1:]), (0.5,), (0.5,), 0.9, "bicubic", None)
    file.write_bytes(export(model, ".onnx", prepared, {}))
    outputs = load_exported(file, 10)(images)
    torch.testing.assert_close(outputs, model(images), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["beit", "hiera"])
def test_members_of_other_families_are_exported(name, tmp_path):
    """docs/deploy.md says which were tried by hand."""
    model = make_member(MEMBERS[name])
    check_export(model, images_for(model, 3), tmp_path / "model.onnx")


def test_a_network_that_has_lost_an_attention_is_exported(tmp_path):
    model = make().eval()
    nothing = torch.empty(0, 0, dtype=torch.long)
    network = Network.whole(model, axes(model, SPACE | {"heads": [0, 2, 4]}))
    cut = network.cut({"blocks.0.attn": nothing}).model
    assert "blocks.0.attn.qkv.weight" not in cut.state_dict()
    check_export(cut, images_for(model, 3), tmp_path / "model.onnx")


class OnlyHere(nn.Module):
    """A head that computes something else once it is exported."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, x):
        return self.head(x) * (0.9 if torch.compiler.is_exporting() else 1.0)


def test_a_file_that_computes_something_else_is_not_written(tmp_path):
    network = find_network(DIGITS, ARCH)
    model = network.subnet.model
    images = images_of(SETTINGS, model, val=False)
    model.head = OnlyHere(model.head)
    with pytest.raises(ExportError, match="outputs differ .* nothing was written"):
        export_network(network, images, tmp_path / "small.pt2")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", "pt2", "--int8", "static"], "is ONNX Runtime's"),
        (["--format", "pt2", "-o", "a.onnx"], r"expected a name with .pt2 for --format pt2"),
        (["--data", "fashion_mnist"], "takes images of (1, 8, 8)"),
    ],
)
def test_what_does_not_go_together_is_refused(words, message, tmp_path):
    done = ofbnas("arch", "export", DIGITS, "--arch", ARCH, *words, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # Python then says that there is none
    done = ofbnas("arch", "export", DIGITS, "--arch", ARCH, cwd=tmp_path)
    assert done.returncode == 2
    assert "needs onnxscript" in done.stderr and "'ofbnas[export]'" in done.stderr

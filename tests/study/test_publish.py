"""A network that was pushed to the Hub is a model of timm; the Hub is a stand-in on this machine."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import servers
import torch
from commands import PATIENCE, ofbnas
from conftest import NAME
from safetensors.torch import save_file
from test_subnet import subnet, table_of  # noqa: F401 (a fixture)

ROW = {
    "dataset": "digits",
    "gmacs": 0.5,
    "parent_gmacs": 1.0,
    "params": 100,
    "parent_params": 200,
    "top1": 90.0,
    "parent_top1": 91.0,
}
PROGRAM = """
import sys, torch
from safetensors.torch import load_file
from ofbnas.cli import main

sys.argv = ["ofbnas", "arch", "push", "study", "hf://models/some-one/net", "--arch", sys.argv[1]]
try:
    main()
except SystemExit as end:
    assert not end.code
import ofbnas.timm, timm

expected = load_file("expected.st")
model = timm.create_model("hf-hub:some-one/net", pretrained=True).eval()
with torch.no_grad():
    assert torch.equal(model(expected["images"]), expected["outputs"])
"""


@pytest.mark.slow
def test_timm_loads_what_was_pushed(subnet, images, tmp_path):  # noqa: F811
    table_of(subnet, tmp_path / "study", **ROW)
    with torch.no_grad():
        save_file({"images": images, "outputs": subnet.model(images)}, tmp_path / "expected.st")
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    with servers.running(servers.HubServer()) as hub:
        hub.env = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "good", "HF_HUB_DISABLE_XET": "1"}
        ran = subprocess.run(
            [sys.executable, "-c", PROGRAM, subnet.architecture.id],
            cwd=tmp_path,
            env=clean | hub.env | {"HF_HOME": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert ran.returncode == 0, ran.stderr
    assert 'timm.create_model("hf-hub:some-one/net", pretrained=True) loads it' in ran.stdout
    held = hub.repos["some-one/net"]
    assert set(held) == {"README.md", "config.json", "load.py", "model.safetensors"}
    card = held["README.md"].decode()
    assert 'timm.create_model("hf-hub:some-one/net", pretrained=True)' in card
    assert NAME.replace("_", "\\_") in card and "| 90.00 | 91.00 |" in card


@pytest.mark.parametrize(
    ("target", "changed", "message"),
    [
        ("hf://datasets/some-one/net", {}, "expected hf://models/OWNER/NAME"),
        ("hf://models/some-one/net/folder", {}, "expected hf://models/OWNER/NAME"),
        ("hf://models/some-one/net", {"parent_gmacs": None}, "has no parent_gmacs"),
        ("hf://models/some-one/net", {"weights": None}, "names no weights"),
    ],
)
def test_what_cannot_be_pushed_is_refused_in_a_line(
    subnet,  # noqa: F811
    tmp_path,
    target,
    changed,
    message,
):
    table_of(subnet, tmp_path / "study", **ROW | changed)
    ran = ofbnas("arch", "push", tmp_path / "study", target, "--arch", subnet.architecture.id)
    assert ran.returncode == 2 and message in ran.stderr.replace("\n", " ")

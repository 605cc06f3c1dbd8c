"""Networks whose blocks are all alike are timm's own, made from its own arguments."""

from __future__ import annotations

import json

import pytest
import timm
import torch
from conftest import KWARGS, NAME, make

from ofbnas.models.architecture import Architecture
from ofbnas.models.axes import axes
from ofbnas.models.shrink import cut_to
from ofbnas.models.stock import alike, stock_args
from ofbnas.models.subnet import Subnet, load, save

ALIKE = {"embed": (1, 12), "attn": (3, 4), "mlp": (1, 29)}


def cut(**changed: tuple[int, int]) -> Subnet:
    """A network whose blocks are alike except for some axes."""
    parent = make()
    parent_axes = axes(parent, {})
    sizes = {axis.name: changed.get(axis.name, ALIKE[axis.kind]) for axis in parent_axes}
    return Subnet(Architecture(NAME, KWARGS, sizes), cut_to(parent, parent_axes, sizes).eval())


def test_timm_makes_it_from_its_own_arguments(images, tmp_path):
    subnet = cut()
    save(subnet, tmp_path / "a")
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert config["architecture"] == NAME
    assert config["model_args"]["embed_dim"] == 12 and config["model_args"]["num_heads"] == 3
    stock = timm.create_model(f"local-dir:{tmp_path / 'a'}", pretrained=True).eval()
    assert torch.equal(stock(images), subnet.model(images))
    again = load(tmp_path / "a")
    assert torch.equal(again.model(images), subnet.model(images))
    assert again.architecture == subnet.architecture


def test_any_number_of_hidden_units_has_a_ratio():
    assert int(11 * (15 / 11)) == 14, "rounding makes the plain ratio too small for timm"
    for embedding in range(1, 65):
        for units in range(1, 4 * embedding + 1):
            args = alike({"embed": (1, embedding), "a.attn": (1, embedding), "a.mlp": (1, units)})
            assert int(embedding * args["mlp_ratio"]) == units


@pytest.mark.parametrize(
    "changed",
    [
        {"blocks.1.mlp": (1, 30)},
        {"blocks.1.attn": (2, 4)},
        {"blocks.0.attn": (3, 3), "blocks.1.attn": (3, 3)},  # heads narrower than the embedding
        {"blocks.0.mlp": (0, 0), "blocks.1.mlp": (0, 0)},
    ],
)
def test_timm_has_no_arguments_for_others(changed):
    subnet = cut(**changed)
    assert stock_args(subnet.architecture, subnet.model) is None

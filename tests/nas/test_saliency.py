"""Saliency equals its definition, and a search can start from it."""

from __future__ import annotations

import pytest
import torch
from conftest import SPACE
from test_search import config, run
from torch import nn

from ofbnas.models.axes import axes
from ofbnas.models.bimask import BiMask
from ofbnas.models.supernet import Supernet
from ofbnas.nas.run import StageRun
from ofbnas.nas.saliency import magnitude, normal_scores, taylor
from ofbnas.nas.stage import Stage
from ofbnas.training.data import Epoch


class Mask(BiMask):
    """A mask of ones that is a leaf tensor, so that it gets a gradient."""

    def forward(self) -> torch.Tensor:
        return 1 + self.importance


def test_taylor_saliency_is_the_squared_gradient_of_the_mask(model):
    torch.manual_seed(0)
    model_axes = axes(model, SPACE)
    batches = [(torch.randn(4, 1, 8, 8), torch.randint(0, 10, (4,))) for _ in range(3)]
    supernet = Supernet(
        model, model_axes, {axis.name: Mask(axis.size, axis.options) for axis in model_axes}
    )
    expected = {axis.name: torch.zeros(axis.units) for axis in model_axes}
    for images, labels in batches:
        supernet.zero_grad()
        nn.functional.cross_entropy(supernet(images), labels).backward()
        for axis in model_axes:
            expected[axis.name] += supernet.masked()[axis.name].importance.grad.square()
    found = taylor(model, model_axes, batches)
    for name, saliency in found.items():
        torch.testing.assert_close(saliency, expected[name], rtol=1e-3, atol=1e-7)


def test_a_unit_that_does_nothing_has_no_saliency(model, model_axes):
    with torch.no_grad():
        model.blocks[0].mlp.fc2.weight[:, 7] = 0
    found = taylor(model, model_axes, [(torch.randn(4, 1, 8, 8), torch.arange(4))])["blocks.0.mlp"]
    assert found[7] == 0 and found.count_nonzero() == 63


def test_magnitude_is_the_weight_that_goes_with_a_unit(model, model_axes):
    found = magnitude(model, model_axes)
    mlp = model.blocks[1].mlp
    expected = (
        mlp.fc1.weight[5].square().sum()
        + mlp.fc1.bias[5] ** 2
        + mlp.fc2.weight[:, 5].square().sum()
    )
    torch.testing.assert_close(found["blocks.1.mlp"][5], expected)
    attention = model.blocks[1].attn
    rows = torch.tensor([3, 16 + 3, 32 + 3])
    expected = attention.qkv.weight[rows].square().sum() + attention.qkv.bias[rows].square().sum()
    expected += attention.proj.weight[:, 3].square().sum()
    torch.testing.assert_close(found["blocks.1.attn"][3], expected)


def test_normal_scores_keep_the_order_and_have_the_normal_spread():
    scores = normal_scores(torch.tensor([5.0, -1.0, 100.0, 0.0]))
    assert scores.argsort().tolist() == [1, 3, 0, 2]
    assert scores.sum().abs() < 1e-6 and scores.max() < 2


@pytest.mark.parametrize("start", ["taylor", "magnitude"])
def test_a_search_starts_in_the_order_of_saliency(model, data, start):
    settings = config(importance={"start": start, "std": 0.5, "mean": 1.0, "start_batches": 2})
    begun = StageRun(Stage(model, data, settings, axes(model, SPACE), seed=0))
    batches = list(data.shuffled(32, Epoch()))[:2]
    expected = (
        taylor(model, axes(model), batches) if start == "taylor" else magnitude(model, axes(model))
    )
    for name, mask in begun.supernet.masked().items():
        assert mask.importance.argsort().tolist() == expected[name].argsort(stable=True).tolist(), (
            name
        )
        assert mask.importance.mean().item() == pytest.approx(1.0, abs=1e-5)


def test_a_saliency_start_keeps_the_salient_units(model, data):
    """Half of the hidden units are made useless; a search that hardly learns removes exactly these."""
    with torch.no_grad():
        for block in model.blocks:
            block.mlp.fc2.weight[:, ::2] *= 1e-4
    settings = {"epochs": 1, "lr": 1e-9, "budget": {"gmacs_share": 0.99, "tolerance": 0.9}}
    found = run(model, data, space={"mlp": [32]}, importance={"start": "taylor"}, **settings)
    for index in range(2):
        assert all(unit % 2 for unit in found.subnet.units[f"blocks.{index}.mlp"][0])

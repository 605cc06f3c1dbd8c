"""Swin Transformers: an embedding for each stage, tied by patch merging; windows; biases of relative positions."""

from __future__ import annotations

import pytest
import timm
import torch
from conftest import SWIN, make_swin
from test_search import config

from ofbnas.models.axes import Shares, axes
from ofbnas.models.cost import cost_of, sizes_of
from ofbnas.models.subnet import build, save
from ofbnas.models.supernet import Supernet
from ofbnas.models.tokens import MaskedImageModelling
from ofbnas.nas.budget import choose, option_sizes, reachable
from ofbnas.nas.dynamic import Window
from ofbnas.nas.search import search
from ofbnas.training.evaluation import evaluate

NAME = "swin_tiny_patch4_window7_224"
SPACE = {key: Shares(0.5, 1, 0.25) for key in ("embed", "heads", "head_size", "mlp")}
KEPT = {
    "MLP units": ("layers.1.blocks.0.mlp", torch.tensor([[1, 2, 5, 30, 63, 127]])),
    "heads": (
        "layers.1.blocks.1.attn",
        torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7], [16, 17, 18, 19, 20, 21, 22, 23]]),
    ),
    "head channels": ("layers.0.blocks.1.attn", torch.tensor([[0, 3], [9, 11]])),
}


@pytest.fixture
def model():
    return make_swin()


@pytest.fixture
def images():
    return torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_each_stage_has_an_embedding(model):
    found = axes(model)
    assert [axis.name for axis in found if axis.kind == "embed"] == [
        "layers.0.embed",
        "layers.1.embed",
    ]
    assert len(found) == 2 + 2 * sum(SWIN["depths"])


def test_a_hidden_patch_hides_all_that_becomes_one_place(model, images):
    """The last stage has 4 x 4 places, of 2 x 2 pixels each."""
    supernet = Supernet(model, pmim=MaskedImageModelling(model))
    assert supernet.pmim.grid == (4, 4) and supernet.pmim.patch == 2
    changed = images.clone()
    changed[0, :, :2, :2] += 1
    changed[1, :, 2, 0] += 1
    hidden = torch.tensor([[0], [0], [0]])
    same = [
        torch.equal(a, b)
        for a, b in zip(*(supernet.passes(x, hidden)[1] for x in (images, changed)), strict=True)
    ]
    assert same == [True, False, True]
    features = supernet.passes(images, hidden)[0]
    assert features.shape == (3, 16, 32)
    assert supernet.pmim.loss(features, images, hidden).isfinite()


def test_places_may_reach_beyond_the_image():
    """Of 7 x 7 patches, Swin merges the last row and the last column with nothing."""
    torch.manual_seed(0)
    odd = timm.create_model(NAME, **SWIN | {"img_size": 7, "in_chans": 1, "num_classes": 10}).eval()
    supernet = Supernet(odd, pmim=MaskedImageModelling(odd))
    pmim, images = supernet.pmim, torch.randn(1, 1, 7, 7)
    assert pmim.grid == (4, 4) and pmim.patch == 2
    corner = torch.tensor([[15]])
    changed = images.clone()
    changed[..., 6, 6] += 1
    assert torch.equal(supernet.passes(images, corner)[1], supernet.passes(changed, corner)[1])

    features = supernet.passes(images, corner)[0]
    before = pmim.loss(features, images, corner)
    with torch.no_grad():
        pmim.project.bias += torch.tensor([0.0, 1.0, 1.0, 1.0])
    assert torch.equal(pmim.loss(features, images, corner), before), "three pixels are beyond it"
    with torch.no_grad():
        pmim.project.bias += torch.tensor([9.0, 0.0, 0.0, 0.0])
    assert pmim.loss(features, images, corner) > before


@pytest.mark.parametrize("share", [0.4, 0.7, 1.0])
def test_a_search_keeps_its_budget_and_its_subnet_saves_and_loads(model, data, tmp_path, share):
    kwargs = SWIN | {"in_chans": 1, "num_classes": 10}
    fine = {key: Shares(0.25, 1, 0.125) for key in SPACE}
    found = search(
        model, data, config(epochs=2, budget={"gmacs_share": share}, residual_mask=True), name=NAME, kwargs=kwargs,
        axes=axes(model, fine),
    )  # fmt: skip
    full = cost_of(model, axes(model)).of(sizes_of(axes(model)))
    assert 0.98 * share * full <= found.macs <= share * full
    assert found.params == sum(p.numel() for p in found.subnet.model.parameters())
    save(found.subnet, tmp_path / "subnet")
    again = build(found.subnet.architecture, tmp_path / "subnet" / "model.safetensors").eval()
    outputs = found.subnet.model(data.test.images[:8])
    assert torch.equal(again(data.test.images[:8]), outputs)
    assert 0 <= evaluate(again, data.test).top1 <= 100


@pytest.mark.slow
def test_a_swin_t_is_searched_in_all_its_stages():
    """Four embeddings share weights in a chain, which the exact choice has to follow."""
    import timm

    with torch.device("meta"):
        model = timm.create_model(NAME)
    model_axes = axes(model)
    cost, sizes = cost_of(model, model_axes), option_sizes(model_axes)
    full = cost.of(sizes_of(model_axes))
    assert full / 1e9 == pytest.approx(4.49, abs=0.01)
    window = Window(int(0.98e9), 10**9)
    assert reachable(cost, sizes, window)
    generator = torch.Generator().manual_seed(0)
    scores = [
        torch.rand(len(options), generator=generator).log_softmax(0).numpy() for options in sizes
    ]
    picks = choose(cost, sizes, scores, window)
    assert (
        window.floor
        <= cost.of([tuple(o[p]) for o, p in zip(sizes, picks, strict=True)])
        <= window.limit
    )

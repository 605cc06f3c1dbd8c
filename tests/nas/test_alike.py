"""A space of networks whose blocks are alike, which timm makes from its own arguments."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import timm
from conftest import KWARGS, NAME, ROOT, make, make_swin
from hypothesis import given
from hypothesis import strategies as st
from test_search import config
from test_training_free import trained  # noqa: F401 (a fixture)

from ofbnas.config.study_file import load_space
from ofbnas.errors import InputError
from ofbnas.models.axes import axes
from ofbnas.models.cost import cost_of
from ofbnas.models.stock import stock_args
from ofbnas.nas.alike import picked
from ofbnas.nas.budget import choose, option_sizes, reachable
from ofbnas.nas.dynamic import Window
from ofbnas.nas.search import search
from ofbnas.study.parent import space_of
from ofbnas.study.plan import describe_space

UNIFORM = space_of(load_space(ROOT / "search_spaces" / "uniform.yaml"))
FEW = {"alike": True, "heads": [1, 2, 3, 4], "head_size": [2, 4], "mlp": [16, 32, 48, 64]}


def test_the_embedding_follows_the_heads():
    embed, attention, mlp, *_ = axes(make(), UNIFORM)
    assert embed.options == ((1,), (4, 8, 12, 16))
    assert attention.options == ((1, 2, 3, 4), (4,))
    assert mlp.options[1][0] == 8 and mlp.options[1][-1] == 64
    described = describe_space(make(), axes(make(), FEW), NAME)
    assert described["log10_architectures"] == pytest.approx(math.log10(4 * 2 * 4))


@given(seed=st.integers(0, 10_000), share=st.floats(0.05, 1))
def test_the_choice_is_the_best_of_all_that_are_alike(seed, share):
    model_axes = axes(make(), FEW)
    cost, sizes = cost_of(make(), model_axes, "macs"), option_sizes(model_axes)
    random = np.random.default_rng(seed)
    scores = [random.normal(size=len(options)) for options in sizes]
    full = cost.of([axis.size for axis in model_axes])
    window = Window(int(0.9 * share * full), int(share * full))

    totals = []
    for heads, channels, hidden in product(FEW["heads"], FEW["head_size"], FEW["mlp"]):
        at = {"embed": (1, heads * channels), "attn": (heads, channels), "mlp": (1, hidden)}
        network = [at[axis.kind] for axis in model_axes]
        if cost.of(network) in window:
            indices = [
                options.tolist().index(list(size))
                for options, size in zip(sizes, network, strict=True)
            ]
            totals.append(sum(of_axis[at] for of_axis, at in zip(scores, indices, strict=True)))
    picks = choose(cost, sizes, scores, window)
    assert reachable(cost, sizes, window) == bool(totals) == (picks is not None)
    if picks is not None:
        assert cost.of(picked(sizes, picks)) in window
        total = sum(of_axis[pick] for of_axis, pick in zip(scores, picks, strict=True))
        assert total == pytest.approx(max(totals))


@pytest.mark.parametrize("epochs", [0, 2])
def test_what_is_found_is_made_by_timm_from_its_own_arguments(trained, epochs):  # noqa: F811
    model, data = trained
    settings = config(
        epochs=epochs,
        budget={"gmacs_share": 0.45},
        refine={"candidates": 4, "images": 128},
        compensation={"images": 128},
        training_free={"scoring_images": 64},
    )
    space = axes(model, UNIFORM)
    subnet = search(model, data, settings, name=NAME, kwargs=KWARGS, axes=space).subnet
    arguments = stock_args(subnet.architecture, subnet.model)
    assert arguments is not None and arguments["num_heads"] < 4
    stock = timm.create_model(NAME, **arguments)
    stock.load_state_dict(subnet.model.state_dict())


@pytest.mark.parametrize(
    ("model", "space", "told"),
    [
        (make_swin, UNIFORM, "this model's are not"),
        (make, {**UNIFORM, "embed": [8, 16]}, "leave embed out"),
        (make, {**UNIFORM, "heads": [0, 2]}, "cannot be removed"),
        (make, {**UNIFORM, "alike": [1]}, "expected some of"),
    ],
)
def test_mistakes_are_explained(model, space, told):
    with pytest.raises(InputError, match=told):
        axes(model(), space)

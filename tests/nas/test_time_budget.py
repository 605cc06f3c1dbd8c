"""A budget in milliseconds is kept by measuring what was decided, and deciding again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from commands import ofbnas
from conftest import DIGITS, KWARGS, NAME, make_swin
from test_search import config
from test_timing import of_mac_like, tables

from ofbnas.config import BudgetConfig, SearchConfig
from ofbnas.errors import InputError
from ofbnas.models.axes import axes
from ofbnas.models.time_cost import TimeCost
from ofbnas.nas.budget import budget_of, choose_measured, option_sizes
from ofbnas.nas.dynamic import Window
from ofbnas.nas.search import search

# With so few networks to choose from, and so wide a window, no load of a machine makes them fail.
WHOLE_BRANCHES = {"embed": [16], "heads": [0, 4], "head_size": [4], "mlp": [0, 64]}
BUDGET = {"latency_share": 0.9, "tolerance": 0.95, "timed_on": {"batch_size": 2}}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """A cache of its own, so that tables are measured here."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("OFBNAS_CACHE", str(folder))
        yield folder


def chosen(model_axes, measure, window):
    """The measured time of what is chosen, and the networks measured until then."""
    measured = []

    def recorded(sizes):
        measured.append(measure(list(sizes.values())))
        return measured[-1]

    cost = TimeCost(model_axes, tables(), 1.0, recorded)
    sizes = option_sizes(model_axes)
    generator = np.random.default_rng(0)
    scores = [generator.normal(size=len(options)) for options in sizes]
    picks = choose_measured(cost, sizes, scores, window)
    return measure([tuple(o[i].tolist()) for o, i in zip(sizes, picks, strict=True)]), measured


@pytest.mark.parametrize("factor", [1.0, 1.2, 0.85])
def test_what_is_chosen_takes_what_it_should_whatever_was_predicted(model_axes, factor):
    window = Window(6_000, 6_300)
    time, measured = chosen(model_axes, lambda sizes: factor * of_mac_like(sizes), window)
    assert time in window
    assert len(measured) == (1 if factor == 1 else 2)


def test_a_time_that_no_network_keeps_is_refused(model_axes):
    with pytest.raises(InputError, match=r"takes at most 0.0063 ms; the last one measured takes"):
        chosen(model_axes, lambda sizes: 10 * of_mac_like(sizes), Window(6_000, 6_300))


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_search_is_within_a_share_of_the_parents_time(model, data, epochs, cache):
    if epochs:
        settings = config(epochs=epochs, budget=BUDGET)
    else:
        settings = SearchConfig(
            epochs=0,
            budget=BUDGET,
            compensation={"images": 64},
            training_free={"scoring_images": 64, "step": 0.5},
        )
    torch.manual_seed(0)
    searched = axes(model, WHOLE_BRANCHES)
    result = search(model, data, settings, name=NAME, kwargs=KWARGS, axes=searched)
    sizes = result.subnet.architecture.sizes
    assert 0 < result.params < sum(parameter.numel() for parameter in model.parameters())
    assert any(size == (0, 0) for size in sizes.values()), "the parent itself takes too long"
    assert len(list((cache / "times").glob("*.json"))) == 1, "tables are measured once"


def test_a_budget_in_time_says_what_it_is_of(model):
    searched = axes(model, WHOLE_BRANCHES)
    budget = BudgetConfig(latency_ms=1e-6, timed_on=BUDGET["timed_on"])
    with pytest.raises(InputError, match=r"budget 1e-06 ms is out of reach: .* ms to .* ms"):
        budget_of(model, searched, budget)
    swin = make_swin()
    with pytest.raises(InputError, match="give one in gmacs or params"):
        budget_of(swin, axes(swin), BudgetConfig(latency_share=0.5))
    with pytest.raises(ValueError, match="runtime"):
        BudgetConfig(latency_share=0.5, timed_on={"runtime": "onnx"})
    with pytest.raises(ValueError, match="gives gmacs and latency_ms"):
        BudgetConfig(latency_ms=0.5, gmacs=1)


def test_a_plan_measures_what_narrower_blocks_save():
    words = ["search.budget.latency_share=0.9", "search.budget.tolerance=0.95"]
    words += ["sweep.params={}", "model.kwargs.depth=1"]
    words += ["search_space={embed: [32], heads: [0, 1], head_size: [8], mlp: [0, 64]}"]
    done = ofbnas("study", "plan", DIGITS, *(w for word in words for w in ("--set", word)))
    assert done.returncode == 0, done.stderr
    assert "budget, latency" in done.stdout and "at the least sizes" in done.stdout

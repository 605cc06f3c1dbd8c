"""What a search has chosen is replaced only by units of the same cost that are nearer to the parent."""

from __future__ import annotations

import pytest
import torch
from conftest import SPACE
from test_search import config
from test_training_free import trained  # noqa: F401 (a fixture)

from ofbnas.config import SearchConfig
from ofbnas.models.axes import axes
from ofbnas.models.cost import sizes_of
from ofbnas.nas.budget import budget_of
from ofbnas.nas.images import first_images
from ofbnas.nas.plain import Network
from ofbnas.nas.proportional import proportional
from ofbnas.nas.refine import Refinement, moves, refined
from ofbnas.nas.run import StageRun
from ofbnas.nas.stage import Stage
from ofbnas.training.loop import train


def settings(candidates=12, **changes) -> SearchConfig:
    return config(refine={"candidates": candidates, "images": 256}, **changes)


def units(parent: Network, sizes) -> dict[str, torch.Tensor]:
    """The first units of each axis."""
    return {
        axis.name: torch.arange(axis.units).view(axis.size)[:groups, :channels]
        for axis, (groups, channels) in zip(parent.axes, sizes, strict=True)
    }


@pytest.fixture(scope="module")
def bad(trained):  # noqa: F811
    """A parent, the digits, a budget, and a choice within it that leaves the attentions little."""
    model, data = trained
    parent = Network.whole(model, axes(model, SPACE))
    budget = budget_of(model, parent.axes, settings().budget)
    shares = [0.2 if axis.kind == "attn" else 1.0 for axis in parent.axes]
    return parent, data, budget, units(parent, proportional(parent.axes, budget, shares))


def refinement(bad, candidates=12) -> Refinement:
    parent, data, budget, _ = bad
    images = first_images(data, 256, seed=0)
    return Refinement(parent, budget, images, settings(candidates), seed=0)


def test_bad_sizes_are_replaced_by_better_ones_of_the_same_cost(bad):
    parent, data, budget, chosen = bad
    best = refinement(bad).best(chosen)
    assert best.divergence < 0.8 * refinement(bad).measured(chosen).divergence
    cut = parent.cut(best.units)
    assert budget.cost.of(sizes_of(cut.axes)) in budget.window
    again = refined(chosen, budget, parent, data, settings(), 0)
    assert all(torch.equal(again[name], kept) for name, kept in best.units.items())


def test_units_stay_that_no_candidate_beats(bad):
    best = refinement(bad).best(bad[-1])
    kept = refinement(bad, candidates=1).best(best.units)  # only uniform sizes are tried
    assert kept.units is best.units and kept.divergence == pytest.approx(best.divergence, rel=1e-5)


def test_without_candidates_what_was_chosen_stays(bad):
    parent, data, budget, chosen = bad
    assert refined(chosen, budget, parent, data, settings(candidates=0), 0) == chosen


def test_coarse_moves_come_first(bad):
    parent = bad[0]
    moved = [sum(factor != 1 for factor in move) for move in moves(parent.axes)]
    num_blocks = sum(axis.kind == "mlp" for axis in parent.axes)
    assert moved[2] == num_blocks and set(moved[-2 * len(parent.axes) :]) == {1}


def test_a_search_trains_what_refinement_has_found(bad, monkeypatch):
    parent, data, _, chosen = bad
    monkeypatch.setattr("ofbnas.nas.stage.refined", lambda *_: chosen)
    run = StageRun(
        Stage(parent.model, data, settings(epochs=2, decide_by=0.5), parent.axes, seed=0)
    )
    train(run)
    network = run.network.plain()
    assert all(torch.equal(network.units[name], kept) for name, kept in chosen.items())
    assert sizes_of(network.axes) == [(len(kept), kept.shape[1]) for kept in chosen.values()]

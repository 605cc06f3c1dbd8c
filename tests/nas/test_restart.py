"""The weights that a search trains on once all axes are decided: the parent's, cut and compensated."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import KWARGS, NAME, SPACE
from events import Killed, Recorder
from test_search import config

from ofbnas.models.axes import axes
from ofbnas.nas.compensation import Cut, compensate_
from ofbnas.nas.images import first_images
from ofbnas.nas.run import StageRun
from ofbnas.nas.search import search
from ofbnas.nas.stage import Stage
from ofbnas.training.loop import train


class AtDecision(Recorder):
    """Keeps what the network is right after the decision of all axes."""

    def __init__(self, run: StageRun) -> None:
        super().__init__()
        self.run = run
        self.network = None

    def on_decision(self, record) -> None:
        super().on_decision(record)
        if self.network is None and not self.run.network.open_axes():
            self.network = self.run.network.plain()


def decided(model, data, **changes) -> tuple[StageRun, AtDecision]:
    """A search that decides after one of two epochs, on 128 images of compensation."""
    settings = config(epochs=2, decide_by=0.5, compensation={"images": 128}, **changes)
    run = StageRun(Stage(model, data, settings, axes(model, SPACE), seed=0))
    watched = AtDecision(run)
    train(run, callbacks=[watched])
    return run, watched


@pytest.mark.parametrize(
    "changes", [{}, {"ema": 0.9}, {"decided_masks": "folded"}, {"drop_path": 0.1}], ids=str
)
def test_training_goes_on_from_the_parent_cut_and_compensated(model, data, changes):
    run, watched = decided(model, data, **changes)
    network = run.parent.cut(watched.network.units)
    cut = Cut(run.parent.model, run.parent.axes, network.model, network.axes, network.units)
    images = first_images(data, 128, seed=0)
    compensate_(cut, lambda: images)
    expected = network.model.state_dict()
    at_decision = watched.network.model.state_dict()
    assert expected.keys() == at_decision.keys()
    assert all(torch.equal(at_decision[name], tensor) for name, tensor in expected.items())
    trained = run.network.fused().state_dict()
    assert not torch.equal(trained["blocks.0.mlp.fc1.weight"], expected["blocks.0.mlp.fc1.weight"])


def test_the_parent_stays_as_it_is(model, data):
    before = copy.deepcopy(model.state_dict())
    model.train()
    decided(model, data)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_searched_weights_go_on_under_their_masks(model, data):
    run, watched = decided(model, data, decided_weights="searched")
    assert run.supernet.masked()
    kept = watched.network.units["blocks.0.mlp"].flatten()
    of_parent = model.blocks[0].mlp.fc1.weight.detach()
    assert watched.network.model.blocks[0].mlp.fc1.weight.shape[0] == len(kept)
    embed = watched.network.units["embed"].flatten()
    assert not torch.equal(
        watched.network.model.blocks[0].mlp.fc1.weight, of_parent[kept][:, embed]
    )


def test_a_decision_at_the_end_keeps_what_was_trained(model, data):
    settings = {"epochs": 1, "decide_by": 1.0, "compensation": {"images": 128}}

    def subnet(weights: str):
        found = search(
            model, data, config(**settings, decided_weights=weights), name=NAME, kwargs=KWARGS, axes=axes(model, SPACE)
        )  # fmt: skip
        return found.subnet.model.state_dict()

    parent, searched = subnet("parent"), subnet("searched")
    assert all(torch.equal(parent[name], tensor) for name, tensor in searched.items())


def test_a_search_resumes_before_and_after_the_decision(model, data, tmp_path):
    settings = config(epochs=3, decide_by=0.5, ema=0.9, compensation={"images": 128})

    def run(**arguments):
        return search(
            model, data, settings, name=NAME, kwargs=KWARGS, axes=axes(model, SPACE), **arguments
        )

    whole = run()
    for epochs in (1, 2):
        checkpoint = tmp_path / f"{epochs}.pt"
        with pytest.raises(Killed):
            run(checkpoint=checkpoint, callbacks=[Recorder(killed_after=epochs)])
        resumed = run(checkpoint=checkpoint)
        assert resumed.history == whole.history
        for name, tensor in whole.subnet.model.state_dict().items():
            assert torch.equal(tensor, resumed.subnet.model.state_dict()[name])

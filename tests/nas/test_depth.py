"""Searches whose spaces let branches go: they choose that where a budget asks for it."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import KWARGS, NAME
from contracts import counted
from events import Killed, Recorder
from test_search import config, full

from ofbnas.config import FinetuneConfig, SearchConfig
from ofbnas.models.axes import GONE, axes
from ofbnas.models.subnet import load, save
from ofbnas.nas.search import SearchResult, search
from ofbnas.training.evaluation import evaluate
from ofbnas.training.finetune import finetune

SPACE = {"heads": [0, 2, 4], "head_size": [2, 4], "mlp": [0, 64]}
FREE = SearchConfig(
    epochs=0,
    budget={"gmacs_share": 0.25},
    compensation={"images": 64},
    training_free={"scoring_images": 64},
)
TRAINED = {"epochs": 3, "decide_by": 0.5, "budget": {"gmacs_share": 0.4}, "ema": 0.9}


def check(found: SearchResult, model, data, share: float) -> list[str]:
    """Check the costs of what was found and that it evaluates alike once loaded; what is gone?"""
    small = found.subnet.model
    assert found.macs == counted(small) <= share * full(model)
    assert found.params == sum(parameter.numel() for parameter in small.parameters())
    return [name for name, size in found.subnet.architecture.sizes.items() if size == GONE]


def test_a_search_without_training_lets_branches_go(model, data, tmp_path):
    found = search(model, data, FREE, name=NAME, kwargs=KWARGS, axes=axes(model, SPACE))
    assert check(found, model, data, 0.25)
    save(found.subnet, tmp_path / "subnet")
    again = load(tmp_path / "subnet")
    assert again.architecture.id == found.subnet.architecture.id
    accuracy = evaluate(found.subnet.model, data.test)
    assert vars(evaluate(again.model, data.test)) == pytest.approx(vars(accuracy))


@pytest.mark.parametrize("decided_masks", ["trainable", "folded"])
def test_a_trained_search_lets_branches_go_and_resumes(model, data, tmp_path, decided_masks):
    settings = config(**TRAINED, decided_masks=decided_masks)

    def run(killed_after=None, checkpoint=None):
        return search(
            copy.deepcopy(model), data, settings, name=NAME, kwargs=KWARGS,
            axes=axes(model, SPACE), checkpoint=checkpoint,
            callbacks=[Recorder(killed_after=killed_after)],
        )  # fmt: skip

    whole = run()
    assert check(whole, model, data, 0.4)
    with pytest.raises(Killed):
        run(2, tmp_path / "search.pt")
    again = run(checkpoint=tmp_path / "search.pt")
    assert again.subnet.architecture == whole.subnet.architecture
    assert again.history == whole.history
    for name, tensor in whole.subnet.model.state_dict().items():
        assert torch.equal(tensor, again.subnet.model.state_dict()[name]), name

    tuned = finetune(again.subnet, data, FinetuneConfig(epochs=1, batch_size=32, drop_path=0.1))
    assert all(parameter.grad is not None for parameter in tuned.model.parameters())

"""A search without training: inside its budget, without labels, resumable, and better than cutting alone."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import timm
import torch
from conftest import KWARGS, NAME, SPACE, make, make_swin
from test_search import full

from ofbnas.config import SearchConfig, TrainConfig
from ofbnas.errors import InputError
from ofbnas.models.axes import Shares, axes
from ofbnas.models.cost import cost_of, sizes_of
from ofbnas.nas.finished_blocks import FinishedBlocks
from ofbnas.nas.search import SearchResult, search
from ofbnas.nas.search import compress as compress_to
from ofbnas.nas.training_free import TrainingFreeSearch
from ofbnas.training.data import load_data
from ofbnas.training.evaluation import evaluate
from ofbnas.training.events import Callback
from ofbnas.training.features import knn_top1, linear_cka
from ofbnas.training.plain import fit


def config(share=0.5) -> SearchConfig:
    return SearchConfig(
        epochs=0,
        budget={"gmacs_share": share},
        compensation={"images": 256},
        training_free={"scoring_images": 128},
    )


def compress(model, data, settings=None, **arguments) -> SearchResult:
    kwargs = KWARGS | {"num_classes": model.num_classes}
    arguments = {"axes": axes(model, SPACE)} | arguments
    return search(model, data, settings or config(), name=NAME, kwargs=kwargs, **arguments)


@pytest.fixture(scope="module")
def trained():
    """A network that tells digits apart, and the digits."""
    torch.manual_seed(0)
    data = load_data("digits")
    model = timm.create_model(NAME, **KWARGS)
    fit(model, data, TrainConfig(epochs=20, lr=1e-2, batch_size=32), seed=0)
    assert evaluate(model, data.val).top1 > 88
    return model, data


def test_it_keeps_most_of_the_accuracy_without_an_optimizer_step(trained):
    model, data = trained
    parent = evaluate(model, data.val).top1
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = compress(model, data)
    assert 0.98 * 0.5 * full(model) <= found.macs <= 0.5 * full(model)
    assert evaluate(found.subnet.model, data.val).top1 > parent - 10
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_compensation_is_what_keeps_it(trained, monkeypatch):
    model, data = trained
    with_it = compress(model, data)
    monkeypatch.setattr("ofbnas.nas.training_free.compensate_", lambda *_: [])
    without = compress(model, data)
    assert with_it.history[-1]["task"] < 0.5 * without.history[-1]["task"]


@pytest.mark.parametrize("share", [0.3, 0.6, 1.0])
def test_the_budget_is_kept(model, data, share):
    found = compress(model, data, config(share))
    sizes = sizes_of(
        [replace(axis, size=found.subnet.architecture.sizes[axis.name]) for axis in axes(model)]
    )
    assert found.macs == cost_of(model, axes(model)).of(sizes) <= share * full(model)
    assert found.params == sum(p.numel() for p in found.subnet.model.parameters())
    steps = [record["expected_cost"] for record in found.history]
    assert steps == sorted(steps, reverse=True)
    assert all(after >= 0.6 * before for before, after in zip([1.0, *steps], steps, strict=False))


def test_a_budget_out_of_reach_is_refused(model, data):
    with pytest.raises(InputError, match="out of reach"):
        compress(model, data, config(0.01))


def test_labels_are_not_looked_at(model, data):
    noise = replace(
        data, train=type(data.train)(data.train.images, torch.zeros_like(data.train.labels))
    )
    found, other = compress(model, data), compress(model, noise)
    assert found.subnet.architecture == other.subnet.architecture
    for name, tensor in found.subnet.model.state_dict().items():
        assert torch.equal(tensor, other.subnet.model.state_dict()[name])


def test_the_whole_model_is_given_back_where_all_of_it_fits(model, data, images):
    found = compress(model, data, config(1.0))
    with torch.no_grad():
        torch.testing.assert_close(found.subnet.model(images), model(images), rtol=1e-3, atol=1e-3)


class StopAfter(Callback):
    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_epoch(self, phase, epoch, epochs, losses):
        if epoch == self.epoch:
            raise KeyboardInterrupt


@pytest.mark.parametrize("reverse", [False, True], ids=["in order", "in reverse"])
@pytest.mark.parametrize(
    "model",
    [make(depth=3), make(depth=3, num_classes=0), make_swin()],
    ids=["vit", "features", "swin"],
)
def test_blocks_before_an_option_are_not_run_again_and_change_nothing(
    model, data, reverse, monkeypatch
):
    """Whatever the order of axes."""
    halves = dict.fromkeys(("embed", "heads", "head_size", "mlp"), Shares(0.5, 1, 0.5))
    searched = sorted(axes(model, halves), key=lambda axis: axis.name, reverse=reverse)
    first = next(block for name, block in model.named_modules() if name.endswith("blocks.0"))
    calls = []
    first.norm1.register_forward_pre_hook(lambda *_: calls.append(1))  # copies have it, too

    def found() -> tuple[list[dict], dict[str, torch.Tensor], int]:
        """The history, the weights, and how often the first block was run."""
        calls.clear()
        search = TrainingFreeSearch(model, data, config(), searched, seed=0)
        ((_, network),) = search.run()
        return search.history, network.model.state_dict(), len(calls)

    history, weights, few = found()
    with monkeypatch.context() as patched:
        patched.setattr(FinishedBlocks, "position", lambda *_: 0)
        history_of_all, weights_of_all, many = found()
    assert history == history_of_all and few < many
    assert all(torch.equal(tensor, weights_of_all[name]) for name, tensor in weights.items())


def test_an_interrupted_search_ends_as_the_uninterrupted_one(model, data, tmp_path):
    whole = compress(model, data, config(0.3))
    assert len(whole.history) > 2
    for epoch in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            compress(
                model,
                data,
                config(0.3),
                checkpoint=tmp_path / "search.pt",
                callbacks=[StopAfter(epoch)],
            )
    resumed = compress(model, data, config(0.3), checkpoint=tmp_path / "search.pt")
    assert resumed.history == whole.history
    assert resumed.subnet.units == whole.subnet.units
    for name, tensor in whole.subnet.model.state_dict().items():
        assert torch.equal(tensor, resumed.subnet.model.state_dict()[name])


FEW = {"heads": [1, 2, 4], "mlp": [16, 32, 64]}  # sizes, for tests that take many steps


def chain(model, data, shares, **arguments) -> list[tuple[int, SearchResult]]:
    """What is found for several budgets, in the order in which it is found."""
    more = [config(share).budget for share in shares[1:]]
    arguments = {"name": NAME, "kwargs": KWARGS, "axes": axes(model, FEW)} | arguments
    return list(compress_to(model, data, config(shares[0]), more, **arguments))


def same(one: SearchResult, other: SearchResult) -> bool:
    tensors = other.subnet.model.state_dict()
    return (
        one.history == other.history
        and one.subnet.units == other.subnet.units
        and all(torch.equal(tensor, tensors[name]) for name, tensor in one.subnet.model.state_dict().items())
    )  # fmt: skip


@pytest.fixture(scope="module")
def two_budgets(data):
    """Found for half of a model and for three quarters of it, in this order given."""
    return chain(make(), data, [0.5, 0.75])


def test_a_lower_budget_goes_on_from_the_network_of_a_higher_one(model, data, two_budgets):
    (first, high), (second, low) = two_budgets
    assert (first, second) == (1, 0)
    assert same(high, compress(model, data, config(0.75), axes=axes(model, FEW)))
    assert low.macs <= 0.5 * full(model) < high.macs <= 0.75 * full(model)
    assert low.history[: len(high.history)] == high.history
    for axis, units in low.subnet.units.items():
        before = torch.tensor(high.subnet.units[axis])
        assert torch.isin(torch.tensor(units), before).all()


def test_an_interrupted_chain_goes_on_below_what_it_has_found(model, data, tmp_path, two_budgets):
    file = tmp_path / "search.pt"
    with pytest.raises(KeyboardInterrupt):
        chain(model, data, [0.5, 0.75], checkpoint=file, callbacks=[StopAfter(2)])
    ((number, resumed),) = chain(model, data, [0.5, 0.75], checkpoint=file)
    assert number == 0 and same(resumed, two_budgets[1][1])


def test_a_model_without_a_classifier_keeps_its_features(trained):
    model, data = copy.deepcopy(trained[0]), trained[1]
    model.reset_classifier(0)
    same_width = compress(model, data, config(0.65), axes=axes(model, FEW)).subnet.model
    assert linear_cka(same_width, model, data.test) > 0.95

    narrow = compress(model, data).subnet.model
    assert narrow.num_features < model.num_features, "features of other widths are compared"
    parent = knn_top1(model, data.val, data.test)
    assert knn_top1(narrow, data.val, data.test) > parent - 10

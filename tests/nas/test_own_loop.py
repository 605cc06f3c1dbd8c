"""A search in a loop of the user's own, with ofbnas' optimizers and with the user's."""

from __future__ import annotations

import copy

import pytest
import timm.optim
import torch
from conftest import KWARGS, NAME, SPACE
from test_search import config
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import ofbnas
from ofbnas.errors import InputError
from ofbnas.models.axes import axes
from ofbnas.models.cost import cost_of, sizes_of
from ofbnas.nas.search import search
from ofbnas.training.batches import batches
from ofbnas.training.recipe import schedule

HEADS = {"embed": [8, 12, 16], "heads": [1, 2, 4], "mlp": [16, 32, 48, 64]}  # no query is rescaled
SETTINGS = {
    "epochs": 1,
    "decide_by": 0.5,
    "decision_interval": {"epochs": 1 / 5},
    "compensation": {"images": 128},
    "refine": {"candidates": 0},
}


def settings(**changes):
    return config(**SETTINGS | changes)


def begin(model, data, settings, space=SPACE, **arguments):
    return ofbnas.SearchRun(model, data, settings, axes=axes(model, space), **arguments)


def batches_of(data, settings):
    """The batches that the built-in loop trains on."""
    return [parts[0] for _, parts in batches(data, settings, seed=0)]


def weights_of(model):
    return dict(model.state_dict())


def assert_same(one, other):
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different


def train(run, optimizer, pairs, **loss):
    """A user's own loop."""
    run.model.train()
    for images, labels in pairs:
        optimizer.zero_grad()
        run.loss(run.model(images), labels, **loss).backward()
        optimizer.step()
        run.after_step()


@pytest.mark.parametrize(
    "changes",
    [
        {"accumulate": 2, "clip_grad": 0.5, "distill": {"features": 1.0}, "optimizer": "lamb"},
        {"decided_weights": "searched", "decided_masks": "folded", "ema": 0.9, "loss": "bce"},
    ],
    ids=str,
)
def test_steps_by_hand_are_those_of_the_built_in_loop(model, data, changes):
    given = settings(**changes)
    state = torch.get_rng_state()
    run = begin(model, data, given)
    assert torch.equal(state, torch.get_rng_state()), "the program's random state stays"
    for _, parts in batches(data, given, seed=0):
        run.step(torch.cat([images for images, _ in parts]), torch.cat([part[1] for part in parts]))
    alone = search(model, data, given, name=NAME, kwargs=KWARGS, axes=axes(model, SPACE))
    assert run.is_decided and run.history == alone.history
    subnet = run.subnet()
    assert subnet.architecture == alone.subnet.architecture and subnet.units == alone.subnet.units
    assert_same(weights_of(subnet.model), weights_of(alone.subnet.model))


@pytest.mark.parametrize("decided_weights", ["parent", "searched"])
def test_an_optimizer_of_ones_own_computes_what_ofbnas_computes(model, data, decided_weights):
    """The same optimizer, schedule and batches, in a user's hands."""
    theirs = settings(weight_decay=0.0, clip_grad=None, decided_weights=decided_weights)
    alone = search(model, data, theirs, name=NAME, kwargs=KWARGS, axes=axes(model, SPACE))
    own = settings(decided_weights=decided_weights)
    run = begin(model, data, own.model_copy(update={"weight_decay": 0.0}))
    optimizer = torch.optim.AdamW(run.model.parameters(), lr=2e-3, weight_decay=0.0, fused=True)
    run.attach(optimizer)
    rates = schedule(optimizer, own, run._stage.length)
    for step, pair in enumerate(batches_of(data, own)):
        rates.step_update(step)
        train(run, optimizer, [pair])
    assert run.history == alone.history
    assert_same(weights_of(run.subnet().model), weights_of(alone.subnet.model))


def undecided(model, data, **changes):
    """A search at its first decision, with Adam's moments of three steps."""
    run = begin(model, data, settings(decided_weights="searched", **changes), HEADS)
    optimizer = torch.optim.AdamW(run.model.parameters(), lr=2e-3)
    run.attach(optimizer)
    train(run, optimizer, batches_of(data, settings())[:1])
    return run, optimizer


def test_a_shrink_keeps_the_moments_of_the_kept_units_exactly(model, data):
    run, optimizer = undecided(model, data)
    names = [name for name, _ in run.model.timm.named_parameters()]
    held = {}
    for parameter, (name, own) in zip(
        optimizer.param_groups[0]["params"], run.model.timm.named_parameters(), strict=True
    ):
        assert parameter is own
        held[name] = copy.deepcopy(optimizer.state[parameter])
    told = []
    run.on_shrink(told.append)
    run.decide()

    now = dict(run.model.timm.named_parameters())
    assert optimizer.param_groups[0]["params"] == [now[name] for name in names]
    assert set(optimizer.state) == set(now.values()), "no state of old parameters is left"
    units = {name: torch.tensor(kept) for name, kept in run.subnet().units.items()}
    embed, mlp = units["embed"].flatten(), units["blocks.0.mlp"].flatten()
    assert len(embed) < 16 and len(mlp) < 64
    for kind in ("exp_avg", "exp_avg_sq"):
        before = held["blocks.0.mlp.fc1.weight"][kind]
        after = optimizer.state[now["blocks.0.mlp.fc1.weight"]][kind]
        assert before.any() and torch.equal(after, before[mlp][:, embed])
    assert all(optimizer.state[now[name]]["step"] == 1 for name in names)
    (shrink,) = told
    assert list(shrink.before) == names and shrink.after == now
    weights = shrink.carried({"head.weight": shrink.before["head.weight"]})
    assert torch.equal(weights["head.weight"], now["head.weight"])


def test_training_that_restarts_from_the_parents_weights_starts_the_state_anew(model, data):
    run = begin(model, data, settings())
    loss = nn.Linear(2, 2)
    optimizer = torch.optim.Adam([*run.model.parameters(), *loss.parameters()])
    run.attach(optimizer)
    own = {parameter: optimizer.state[parameter] for parameter in loss.parameters()}
    train(run, optimizer, batches_of(data, settings())[:1])
    run.decide()
    assert not set(optimizer.state) - set(own)
    assert optimizer.param_groups[0]["params"][-2:] == list(loss.parameters())


@pytest.mark.parametrize("name", ["sgd", "lamb", "lion", "adan", "muon"])
def test_optimizers_follow_every_shrink(model, data, name):
    run = begin(model, data, settings())
    optimizer = timm.optim.create_optimizer_v2(run.model, name, lr=1e-3, weight_decay=0.1)
    exempt = next(g for g in optimizer.param_groups if not g["weight_decay"])["params"]
    assert any(parameter is run.model.timm.pos_embed for parameter in exempt)
    run.attach(optimizer)
    train(run, optimizer, batches_of(data, settings())[:6])
    assert run.is_decided
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert set(held) == set(run.model.parameters())
    assert run.subnet().model(data.test.images[:4]).isfinite().all()


@pytest.mark.parametrize("kind", [torch.optim.Adafactor, timm.optim.MADGRAD, torch.optim.ASGD])
def test_an_optimizer_whose_state_cannot_follow_is_refused_at_once(model, data, kind):
    run = begin(model, data, settings())
    optimizer = kind(run.model.parameters(), lr=1e-3)
    before = copy.deepcopy(weights_of(run.model))
    with pytest.raises(InputError, match=r"keeps \w+, which cannot follow its parameters"):
        run.attach(optimizer)
    assert not optimizer.state
    assert_same(weights_of(run.model), before)


def test_parts_of_a_batch_and_the_scale_of_a_loss_change_nothing_of_the_masks(model, data):
    """As loops that accumulate gradients, or train in float16, multiply losses."""

    def masks(scales):
        run = begin(model, data, settings(pmim={"weight": 0.0}))
        run.attach(torch.optim.SGD(run.model.parameters(), lr=0.0))
        images, labels = batches_of(data, settings())[0]
        parts = zip(images.chunk(len(scales)), labels.chunk(len(scales)), strict=True)
        for scale, (part, of_part) in zip(scales, parts, strict=True):
            (scale * run.loss(run.model(part), of_part)).backward()
        run.after_step()
        trained = run._stage.supernet.trained()
        return torch.cat([p.grad.flatten() for name, p in trained.items() if "masks." in name])

    whole = masks([1.0])
    assert whole.any()
    for scales in ([1024.0], [0.5, 0.5], [512.0, 512.0]):
        torch.testing.assert_close(masks(scales), whole, rtol=1e-4, atol=1e-7)


def test_the_subnet_meets_the_budget_and_computes_what_the_supernet_computes(model, data, tmp_path):
    run, optimizer = undecided(model, data)
    with pytest.raises(InputError, match="options are open until step 5, and 1 are done"):
        run.subnet()
    train(run, optimizer, batches_of(data, settings())[1:7])
    subnet, images = run.subnet(), data.test.images[:8]
    full = cost_of(model, axes(model), "macs").of(sizes_of(axes(model)))
    macs = cost_of(subnet.model, axes(subnet.model), "macs").of(sizes_of(axes(subnet.model)))
    assert 0.9 * 0.5 * full < macs <= 0.5 * full
    torch.testing.assert_close(subnet.model(images), run.model.eval()(images))
    again = ofbnas.load_subnet(subnet.save(tmp_path / "found"))
    assert torch.equal(again(images), subnet.model(images))


@pytest.mark.parametrize("done", [3, 7])
def test_a_search_goes_on_from_its_state(model, data, done, tmp_path):
    pairs = batches_of(data, settings())[:8]
    given = settings(decided_weights="searched", ema=0.9)

    def start():
        run = begin(model, data, given)
        optimizer = torch.optim.AdamW(run.model.parameters(), lr=2e-3)
        run.attach(optimizer)
        return run, optimizer

    run, optimizer = start()
    train(run, optimizer, pairs[:done])
    torch.save(run.state_dict(), tmp_path / "search.pt")
    train(run, optimizer, pairs[done:])

    again, other = start()
    again.load_state_dict(torch.load(tmp_path / "search.pt", weights_only=True))
    train(again, other, pairs[done:])
    assert again.history == run.history
    assert_same(weights_of(again.subnet().model), weights_of(run.subnet().model))


def test_a_loop_takes_a_loader_and_a_loss_of_its_own(model, data):
    """Labels that are no classes: which of the classes an image shows, in a batch of names."""
    images, labels = data.train.images[:64], data.train.labels[:64]
    several = nn.functional.one_hot(labels, 10) + nn.functional.one_hot(labels.flip(0), 10)
    loader = DataLoader(TensorDataset(images, several.clamp(max=1).float()), 32)
    given = settings(decide_by={"steps": 1})
    loss = nn.BCEWithLogitsLoss()
    first = begin(model, loader, given, loss=loss)
    second = begin(model, loader, given, loss=loss)
    optimizers = []
    for run in (first, second):
        optimizers.append(torch.optim.SGD(run.model.parameters(), lr=0.1))
        run.attach(optimizers[-1])
    assert first.num_steps == 2
    for images, labels in loader:
        train(first, optimizers[0], [(images, labels)])
        optimizers[1].zero_grad()
        outputs = second.model(images)
        second.loss(outputs, task=loss(outputs, labels)).backward()
        optimizers[1].step()
        second.after_step()
    assert first.history[0]["task"] == pytest.approx(second.history[0]["task"])
    assert_same(weights_of(first.subnet().model), weights_of(second.subnet().model))


def test_mistakes_are_told(model, data):
    images, labels = batches_of(data, settings())[0]
    run = begin(model, data, settings())
    for call, message in [
        (lambda: run.loss(run.model(images), labels), "nothing follows a shrink"),
        (lambda: run.attach(torch.optim.Adam(nn.Linear(2, 2).parameters())), "holds no parameter"),
        (lambda: run.model.to(torch.float64), "was moved from cpu, torch.float32"),
    ]:
        with pytest.raises(InputError, match=message):
            call()

    run = begin(model, data, settings())
    run.attach(torch.optim.Adam(run.model.parameters()))
    outputs = run.model(images)
    for call, message in [
        (lambda: run.loss(outputs), "give the labels, or the task's loss"),
        (lambda: run.after_step(), "after_step follows loss"),
        (lambda: run.step(images, labels), "call loss and after_step"),
        (lambda: run.model._replicate_for_data_parallel()(images), "DataParallel"),
        (lambda: run.load_state_dict(begin(model, data, settings()).state_dict()), "attach them"),
    ]:
        with pytest.raises(InputError, match=message):
            call()
    run.loss(outputs, labels)
    with pytest.raises(InputError, match="loss follows a call of model"):
        run.loss(outputs, labels)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "ofbnas.compress makes it"),
        ({"augment": {"erasing": 0.5}}, "erasing would have no effect: augment images"),
    ],
)
def test_settings_without_effect_are_refused(model, data, changes, message):
    with pytest.raises(InputError, match=message):
        begin(model, data, settings(**changes))


@pytest.mark.parametrize(
    "changes", [{"clip_grad": 0.5, "amp": "bfloat16"}, {"augment": {"mixup": 0.8}}]
)
def test_settings_of_ofbnas_optimizer_are_refused_with_ones_own(model, data, changes):
    run = begin(model, data, settings(**changes))
    with pytest.raises(InputError, match="no effect"):
        run.attach(torch.optim.Adam(run.model.parameters()))

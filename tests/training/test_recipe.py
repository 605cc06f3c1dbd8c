"""Each part of a training recipe does what it says."""

from __future__ import annotations

import copy
import math
from itertools import islice

import pytest
import torch
from conftest import SPACE, make
from events import Recorder
from PIL import Image
from test_search import config, run
from timm.layers import DropPath
from torch._dynamo.utils import counters

from ofbnas.config import AugmentConfig, Length, RateConfig, TrainConfig
from ofbnas.errors import InputError
from ofbnas.models.axes import axes, set_drop_path
from ofbnas.models.moments import Shrink, moments
from ofbnas.models.passes import Passes
from ofbnas.nas.run import StageRun
from ofbnas.nas.stage import Stage
from ofbnas.training.batches import batches
from ofbnas.training.data.base import rand_augment_of
from ofbnas.training.loop import train
from ofbnas.training.plain import fit
from ofbnas.training.recipe import (
    Average,
    Optimizers,
    grad_scaler,
    mixer,
    schedule,
    weights_optimizer,
)

CPU = torch.device("cpu")


def fitted(data, seed=0, **changes):
    model = make()
    told = Recorder()
    settings = TrainConfig(**{"epochs": 1, "batch_size": 32, "lr": 1e-3} | changes)
    fit(model, data, settings, seed=seed, callbacks=[told])
    return model, [losses["task"] for _, losses in told.epochs]


def difference(one, other):
    return max(
        (a - b).abs().max().item()
        for a, b in zip(one.parameters(), other.parameters(), strict=True)
    )


@pytest.mark.parametrize("name", ["cosine", "poly", "tanh", "constant"])
def test_schedules_rise_and_end_where_they_should(name):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    rate = RateConfig(lr=2.0, schedule=name, warmup={"steps": 10}, start_share=0.5, end_share=0.1)
    made, rates = schedule(optimizer, rate, Length(100, 10)), []
    for step in range(100):
        made.step_update(step)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[0] == pytest.approx(1.0) and rates[10] == pytest.approx(2.0, rel=0.02)
    assert rates[:11] == sorted(rates[:11]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(2.0 if name == "constant" else 0.2, rel=0.12)


def test_later_layers_learn_faster():
    model = make()
    optimizer = weights_optimizer(model, TrainConfig(epochs=1, layer_decay=0.5))
    schedule(
        optimizer, RateConfig(lr=1.0, warmup=0.0, schedule="constant"), Length(10, 1)
    ).step_update(0)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    by_name = {
        name: rates[id(p)] / rates[id(model.head.weight)] for name, p in model.named_parameters()
    }
    assert by_name["blocks.1.mlp.fc1.weight"] == pytest.approx(0.5)
    assert by_name["blocks.0.mlp.fc1.weight"] == pytest.approx(0.25)
    assert by_name["patch_embed.proj.weight"] == pytest.approx(0.125)


def test_exempt_parameters_have_no_weight_decay():
    model = make()
    extra = torch.nn.Parameter(torch.ones(3, 3))
    optimizer = weights_optimizer(
        model, TrainConfig(epochs=1, weight_decay=0.1), {"masks.a": extra}
    )
    still = {
        id(p)
        for group in optimizer.param_groups
        if not group["weight_decay"]
        for p in group["params"]
    }
    names = {name for name, p in model.named_parameters() if id(p) in still}
    assert {"pos_embed", "cls_token", "norm.weight", "head.bias"} <= names and id(extra) in still
    assert "head.weight" not in names


@pytest.mark.parametrize("name", ["adamw", "lamb", "sgd", "lion"])
def test_timms_optimizers_train(data, name):
    _, losses = fitted(data, optimizer=name, epochs=3, lr=3e-3)
    assert losses[-1] < losses[0]


def test_an_unknown_optimizer_is_refused(data):
    with pytest.raises(InputError, match=r"optimizer adamax2: .*list_optimizers"):
        fitted(data, optimizer="adamax2")


@pytest.mark.parametrize("mode", ["norm", "value", "agc"])
def test_gradients_are_clipped(mode):
    model, images = make(), torch.randn(4, 1, 8, 8)
    grown = {}
    for clip in (1e-3, None):
        one = copy.deepcopy(model)
        settings = TrainConfig(
            epochs=1, clip_grad=clip, clip_mode=mode, optimizer="sgd", weight_decay=0, lr=1.0
        )
        optimizers = Optimizers(settings, Length(10, 1), grad_scaler(settings, CPU))
        optimizers.add(weights_optimizer(one, settings), RateConfig(warmup=0.0))
        optimizers.begin(0)
        optimizers.backward(one(images).square().sum())
        optimizers.apply()
        grown[clip] = difference(one, model)
    assert grown[1e-3] < grown[None] / 10


def test_parts_of_a_batch_add_up_to_the_batch(data):
    whole, _ = fitted(data, clip_grad=None, optimizer="sgd")
    parts, _ = fitted(data, clip_grad=None, optimizer="sgd", accumulate=4)
    assert difference(whole, parts) < 1e-5 < difference(whole, make())


def test_batches_that_cannot_be_dealt_out_are_refused(data):
    with pytest.raises(InputError, match=r"batch_size 32 leaves 2 images over .* 3 parts"):
        fitted(data, accumulate=3)
    with pytest.raises(InputError, match=r"batch_size 33 .* pairs that are mixed"):
        fitted(data, batch_size=33, augment={"mixup": 1.0})


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_mixed_precision_is_near_full_precision_but_not_it(data, dtype):
    full, _ = fitted(data)
    mixed, losses = fitted(data, amp=dtype)
    assert 0 < difference(full, mixed) < 0.05 and math.isfinite(losses[0])


@pytest.mark.slow
def test_a_compiled_model_trains_as_the_plain_one(data):
    plain, plain_losses = fitted(data)
    compiled, losses = fitted(data, compile=True)
    assert losses == pytest.approx(plain_losses, rel=1e-3)
    assert difference(plain, compiled) < 1e-2


@pytest.mark.slow
def test_a_compiled_search_is_the_plain_one_through_its_shrinks(model, data):
    """Axes are decided in between, so the network is compiled again."""
    settings = {"epochs": 2, "decide_by": 0.6, "pmim": {"mask_ratio": 0.5, "warmup": 0.0}}
    plain = run(model, data, **settings)
    counters.clear()
    compiled = run(model, data, **settings, compile=True)
    assert counters["stats"]["unique_graphs"] >= 2
    assert compiled.subnet.architecture == plain.subnet.architecture
    for one, other in zip(plain.history, compiled.history, strict=True):
        assert other["task"] == pytest.approx(one["task"], rel=1e-3)
        assert other["reconstruction"] == pytest.approx(one["reconstruction"], rel=1e-3)


def test_the_average_of_the_weights_is_the_result(data):
    last, _ = fitted(data)
    averaged, _ = fitted(data, ema=0.5)
    assert difference(last, averaged) > 1e-4
    one = Average(0.9, {"w": torch.zeros(1)})
    for step in range(200):
        one.update({"w": torch.ones(1)}, step)
    assert one.tensors["w"].item() == pytest.approx(1.0, abs=1e-6)
    one.update({"w": torch.zeros(1)}, 200)
    assert one.tensors["w"].item() == pytest.approx(0.9, abs=1e-6)


def test_stochastic_depth_grows_with_the_layer_and_ends_with_the_training(data):
    model = make(depth=3)
    set_drop_path(model, 0.4)
    rates = [
        block.drop_path1.drop_prob if isinstance(block.drop_path1, DropPath) else 0.0
        for block in model.blocks
    ]
    assert rates == pytest.approx([0.0, 0.2, 0.4])
    trained, _ = fitted(data, drop_path=0.5)
    assert not any(isinstance(module, DropPath) for module in trained.modules())
    assert difference(trained, fitted(data)[0]) > 1e-4


def test_a_models_own_stochastic_depth_stays_where_none_is_asked_for(data):
    own = make(drop_path_rate=0.3)
    fit(own, data, TrainConfig(epochs=1, batch_size=32), seed=0)
    assert [m.drop_prob for m in own.modules() if isinstance(m, DropPath)] == pytest.approx(
        [0.3, 0.3]
    )
    searcher = StageRun(Stage(own, data, config(epochs=1), axes(own, SPACE), seed=0))
    assert any(isinstance(module, DropPath) for module in searcher.supernet.model.modules())


def first_batches(data, **augment):
    settings = TrainConfig(epochs=1, batch_size=32, augment=augment)
    return [parts[0] for _, parts in islice(batches(data, settings, seed=0), 3)]


def test_repeats_take_each_image_several_times(data):
    images, labels = first_batches(data, repeats=4)[0]
    groups = labels.view(8, 4)
    assert (groups == groups[:, :1]).all(), "copies stand together"
    assert not torch.equal(images[0], images[1]) or not torch.equal(images[4], images[5]), (
        "augmented anew"
    )


def test_rectangles_are_erased(data):
    plain, erased = first_batches(data)[0][0], first_batches(data, erasing=1.0)[0][0]
    changed = (plain != erased).flatten(1).float().mean(1)
    assert (changed > 0).all() and 0.02 < changed.mean() < 0.4


@pytest.mark.parametrize("description", ["rand-m10-n2000-inc1", "rand-m0-n2000"])
def test_rand_augment_works_at_its_strongest(description):
    image = Image.new("RGB", (8, 8), (200, 100, 50))
    assert rand_augment_of(description, 128)(image).size == (8, 8)


def test_rand_augment_changes_images_and_keeps_their_scale(data):
    plain, changed = (
        first_batches(data)[0][0],
        first_batches(data, rand_augment="rand-m9-mstd0.5-inc1")[0][0],
    )
    assert (plain != changed).flatten(1).any(1).float().mean() > 0.3
    assert changed.min() >= plain.min() - 1e-4 and abs(changed.mean() - plain.mean()) < 1


def test_mixing_gives_shares_of_classes():
    assert mixer(AugmentConfig(), 10) is None
    images, labels = torch.rand(8, 1, 8, 8), torch.arange(8)
    for settings in ({"mixup": 0.8}, {"cutmix": 1.0}):
        mixed, shares = mixer(AugmentConfig(**settings), 10)(images.clone(), labels)
        assert not torch.equal(mixed, images)
        torch.testing.assert_close(shares.sum(1), torch.ones(8))


def test_images_are_mixed_once_all_axes_are_decided(model, data, monkeypatch):
    settings = config(epochs=4, decide_by={"epochs": 2}, augment={"mixup": 0.8})
    searcher = StageRun(Stage(model, data, settings, axes(model, SPACE), seed=0))
    calls, mix = [], searcher.mix
    searcher.mix = lambda images, labels: (
        calls.append(bool(searcher.network.open_axes())) or mix(images, labels)
    )
    train(searcher)
    assert len(calls) == 2 * data.num_batches(32) and not any(calls)


def test_all_axes_are_decided_by_decide_by(model, data):
    found = run(model, data, epochs=4, alpha={"lr": 1e-9}, decide_by={"epochs": 1})
    assert found.forced == 5 and found.history[-1]["step"] == data.num_batches(32)


@pytest.mark.parametrize("masks", ["trainable", "folded"])
def test_decided_masks_are_trained_on_or_multiplied_in(model, data, masks):
    settings = config(
        epochs=2, decide_by={"epochs": 1}, decided_masks=masks, decided_weights="searched"
    )
    searcher = StageRun(Stage(model, data, settings, axes(model, SPACE), seed=0))
    train(searcher)
    assert bool(searcher.supernet.masked()) == (masks == "trainable")


def test_folding_changes_nothing_that_is_computed(model, data):
    settings = config(epochs=2, decided_masks="folded", ema=0.9)
    searcher = StageRun(Stage(model, data, settings, axes(model, SPACE), seed=0))
    searcher.step([(data.train.images[:32], data.train.labels[:32])], 5)
    supernet = searcher.supernet.eval()
    names = [name for name in supernet.masked() if name != "blocks.0.mlp"]
    images = data.test.images[:8]
    torch.testing.assert_close(supernet.folded(names)(images), supernet(images))
    assert list(supernet.folded(names).masked()) == ["blocks.0.mlp"]


def test_moments_of_folded_weights_grow_as_the_weights_shrink(model, data):
    """The gradient of a weight with a folded gain is the old gradient divided by the gain."""
    searcher = StageRun(
        Stage(model, data, config(epochs=2, decided_masks="folded"), axes(model, SPACE), seed=0)
    )
    network, name = searcher.network, "blocks.0.mlp.fc1.weight"
    searcher.step([(data.train.images[:32], data.train.labels[:32])], 5)
    held = moments(network.optimizers.optimizers, network.supernet.trained())
    gain = network.supernet.masked()["blocks.0.mlp"]().detach().view(-1, 1)
    folded = Shrink({}, {}, gains=network._fold(["blocks.0.mlp"])).moments(held)
    torch.testing.assert_close(folded["exp_avg"][name] * gain, held["exp_avg"][name])
    torch.testing.assert_close(folded["exp_avg_sq"][name] * gain**2, held["exp_avg_sq"][name])
    torch.testing.assert_close(
        folded["exp_avg"]["blocks.1.mlp.fc1.weight"], held["exp_avg"]["blocks.1.mlp.fc1.weight"]
    )


@pytest.mark.parametrize("name", ["adamw", "adam", "nadamw", "lamb", "lion", "sgd"])
def test_every_optimizer_of_a_search_follows_its_shrinks(model, data, name):
    lr = 1e-2 if name == "sgd" else 1e-3
    found = run(model, data, epochs=3, optimizer=name, lr=lr, decide_by=0.5)
    assert Passes(found.subnet.model)(data.test.images[:4])[1].isfinite().all()


@pytest.mark.parametrize("amp", ["bfloat16", "float16"])
def test_a_search_runs_in_mixed_precision(model, data, amp):
    found = run(model, data, epochs=2, amp=amp, decide_by=0.5)
    assert all(math.isfinite(record["task"]) for record in found.history)

"""The task's loss: a field of every training, or a function of the user's own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conftest import KWARGS, NAME, make
from torch import nn

from ofbnas.config import FinetuneConfig, TrainConfig
from ofbnas.models.architecture import Architecture
from ofbnas.models.axes import axes
from ofbnas.models.subnet import Subnet
from ofbnas.training.criterion import binary_cross_entropy, task_loss
from ofbnas.training.finetune import finetune
from ofbnas.training.plain import PlainRun, fit
from ofbnas.training.recipe import mixer


@pytest.fixture(scope="module")
def few(data):
    return replace(data, train=type(data.train)(data.train.images[:64], data.train.labels[:64]))


@pytest.fixture
def outputs():
    return torch.randn(6, 10, generator=torch.Generator().manual_seed(0))


LABELS = torch.tensor([0, 3, 9, 3, 1, 5])


def test_bce_asks_of_each_class_whether_the_image_shows_it(outputs):
    p = outputs.sigmoid()
    is_class = nn.functional.one_hot(LABELS, 10).bool()
    expected = -torch.where(is_class, p, 1 - p).log().mean()
    torch.testing.assert_close(binary_cross_entropy(outputs, LABELS), expected)


def test_a_mixed_image_shows_both_of_its_classes_fully(outputs):
    images = torch.rand(6, 1, 8, 8)
    _, shares = mixer(TrainConfig(epochs=1, augment={"mixup": 0.8}).augment, 10)(images, LABELS)
    both = nn.functional.one_hot(LABELS, 10) + nn.functional.one_hot(LABELS.flip(0), 10)
    loss = nn.BCEWithLogitsLoss()(outputs, both.clamp(max=1).float())
    torch.testing.assert_close(binary_cross_entropy(outputs, shares), loss)


@pytest.mark.parametrize("name", ["cross_entropy", "bce"])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_smoothing_does_to_classes_what_it_does_to_shares(outputs, name, smoothing):
    loss = task_loss(name, smoothing)
    shares = nn.functional.one_hot(LABELS, 10).float()
    torch.testing.assert_close(loss(outputs, LABELS), loss(outputs, shares))


def test_smoothed_bce_is_least_where_probabilities_are_the_smoothed_targets():
    targets = nn.functional.one_hot(LABELS, 10) * 0.7 + 0.03
    best = targets.logit().requires_grad_()
    task_loss("bce", 0.3)(best, LABELS).backward()
    assert best.grad.abs().max() < 1e-7


def trained(few, **changes):
    model = make()
    own = changes.pop("criterion", None)
    fit(model, few, TrainConfig(epochs=1, batch_size=32, **changes), seed=0, criterion=own)
    return model.state_dict()["blocks.0.mlp.fc1.weight"]


def test_a_parent_is_trained_by_the_loss_that_is_asked_for(few):
    plain, bce = trained(few), trained(few, loss="bce", label_smoothing=0.0)
    assert not torch.equal(plain, bce)
    assert torch.equal(bce, trained(few, criterion=binary_cross_entropy))


@pytest.mark.parametrize("distill", [None, {"features": 1.0}])
def test_fine_tuning_takes_a_loss_of_ones_own_with_and_without_a_teacher(few, distill):
    parent = make()
    sizes = {axis.name: axis.size for axis in axes(parent)}
    units = {axis.name: torch.arange(axis.units).view(axis.size).tolist() for axis in axes(parent)}
    subnet = Subnet(Architecture(NAME, KWARGS, sizes), parent, units)

    def tuned(own=None, **changes):
        settings = FinetuneConfig(epochs=1, batch_size=32, distill=distill, **changes)
        found = finetune(subnet, few, settings, teacher=parent, loss=own)
        return found.model.state_dict()["blocks.0.mlp.fc1.weight"]

    own = tuned(binary_cross_entropy)
    assert torch.equal(own, tuned(loss="bce", label_smoothing=0.0))
    assert not torch.equal(own, tuned())


def test_a_checkpoint_of_another_loss_is_refused(few):
    runs = [
        PlainRun(make(), few, TrainConfig(epochs=1), seed=0, criterion=own)
        for own in (None, binary_cross_entropy)
    ]
    assert runs[0].settings != runs[1].settings


def test_an_unknown_loss_is_refused():
    with pytest.raises(ValueError, match="cross_entropy"):
        TrainConfig(epochs=1, loss="hinge")

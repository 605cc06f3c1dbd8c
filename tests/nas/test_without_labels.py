"""Searches of models without a classifier: what they learn are the parent's features alone."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from conftest import KWARGS, NAME, SPACE, make

from ofbnas.config import FinetuneConfig, SearchConfig
from ofbnas.errors import InputError
from ofbnas.models.axes import axes
from ofbnas.nas.search import search
from ofbnas.training.features import linear_cka
from ofbnas.training.finetune import finetune
from ofbnas.training.teacher import Teacher

FEATURES = {"weight": 0.0, "features": 1.0}


@pytest.fixture
def backbone():
    return make(num_classes=0).eval()


def searched(model, data, **changes):
    values = {"epochs": 4, "batch_size": 32, "lr": 2e-3, "budget": {"gmacs_share": 0.6}}
    config = SearchConfig(**values | {"distill": FEATURES} | changes)
    return search(
        model, data, config, name=NAME, kwargs=KWARGS | {"num_classes": 0}, axes=axes(model, SPACE)
    )


def with_other_labels(data):
    train = replace(data.train, labels=data.train.labels.flip(0))
    return replace(data, train=train)


def test_labels_are_not_looked_at(backbone, data):
    found = searched(backbone, data)
    again = searched(backbone, with_other_labels(data))
    assert again.history == found.history
    state = again.subnet.model.state_dict()
    assert all(torch.equal(state[name], t) for name, t in found.subnet.model.state_dict().items())
    assert linear_cka(found.subnet.model, backbone, data.val) > 0.5


def test_training_on_brings_features_nearer(backbone, data):
    subnet = searched(backbone, data, epochs=0).subnet
    config = FinetuneConfig(epochs=8, batch_size=32, lr=2e-3, distill=FEATURES)
    trained = finetune(subnet, data, config, teacher=copy.deepcopy(backbone))

    def distance(model) -> float:
        teacher = Teacher(backbone, config.distill)
        images = data.train.images
        channels = torch.tensor(subnet.units["embed"]).flatten()
        with torch.no_grad():
            passed = Teacher(copy.deepcopy(model), config.distill)(images)
            return float(teacher.feature_loss(passed, teacher(images), channels))

    assert distance(trained.model) < distance(subnet.model)


def test_without_features_to_learn_it_is_refused(backbone, data):
    with pytest.raises(InputError, match="search.distill.features above 0 lets it learn"):
        searched(backbone, data, distill={"weight": 1.0})
    subnet = searched(backbone, data, epochs=0).subnet
    with pytest.raises(InputError, match="finetune.distill.features above 0"):
        finetune(subnet, data, FinetuneConfig(epochs=1))

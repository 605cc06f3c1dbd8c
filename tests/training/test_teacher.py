"""Learning from a teacher: the parent, or another timm model."""

from __future__ import annotations

import pytest
import timm
import torch
from conftest import make
from safetensors.torch import save_file

from ofbnas.config import DistillConfig
from ofbnas.errors import InputError
from ofbnas.models.passes import Passes
from ofbnas.study.parent import teacher_of
from ofbnas.training.data import load_data
from ofbnas.training.losses import distillation, feature_distance, similarity_distance
from ofbnas.training.teacher import Normalisation, Teacher


def test_the_loss_is_a_share_and_a_distance():
    task, channels = torch.tensor(3.0), torch.arange(4)
    student, taught = ((torch.randn(2, 3, 4), torch.randn(2, 5)) for _ in range(2))
    plain = Teacher(make(), DistillConfig(weight=0.0))
    assert plain.loss(task, student, taught, channels) == task
    soft, far = (
        distillation(student[1], taught[1], 2.0),
        feature_distance(student[0], taught[0], channels),
    )
    both = Teacher(make(), DistillConfig(weight=0.25, features=2.0)).loss(
        task, student, taught, channels
    )
    torch.testing.assert_close(both, 0.75 * task + 0.25 * soft + 2 * far)


def test_the_parent_teaches_features_and_outputs_without_a_gradient(model, images):
    taught = Teacher(model, DistillConfig())(images)
    for one, other in zip(taught, Passes(model)(images), strict=True):
        assert torch.equal(one, other) and not one.requires_grad


def test_any_model_of_timms_can_teach(tmp_path, images):
    """A convolutional network of another size, on three channels, from a checkpoint."""
    torch.manual_seed(0)
    network = timm.create_model("resnet10t", num_classes=10, in_chans=3).eval()
    save_file(network.state_dict(), tmp_path / "teacher.safetensors")
    config = DistillConfig(
        weight=0.5,
        features=1.0,
        teacher={
            "name": "resnet10t",
            "checkpoint": tmp_path / "teacher.safetensors",
            "kwargs": {"in_chans": 3},
        },
    )
    student = make()
    teacher = teacher_of(config, student, load_data("digits"))
    features, outputs = teacher(images)
    grown = torch.nn.functional.interpolate(images.expand(-1, 3, -1, -1), network.pretrained_cfg["input_size"][1:],
                                            mode="bilinear", antialias=True)  # fmt: skip
    torch.testing.assert_close(outputs, network(grown))
    assert features.shape == (3, network.num_features)
    task, learned = torch.tensor(1.0), Passes(student)(images)
    expected = 0.5 * task + 0.5 * distillation(learned[1], outputs, 2.0)
    expected = expected + similarity_distance(learned[0].mean(1), features)
    torch.testing.assert_close(
        teacher.loss(task, learned, (features, outputs), torch.arange(16)), expected
    )


def test_a_teacher_gets_images_normalised_as_it_wants_them(model, images):
    has, wants = Normalisation([0.2], [0.5]), Normalisation([0.7], [2.0])
    raw = images * 0.5 + 0.2
    teacher = Teacher(model, DistillConfig(teacher={"name": "any"}), has=has, wants=wants)
    torch.testing.assert_close(teacher(images)[1], model((raw - 0.7) / 2.0))


def test_a_teacher_without_weights_is_refused(model):
    config = DistillConfig(teacher={"name": "resnet10t"})
    with pytest.raises(
        InputError, match=r"teacher resnet10t has no weights; give it pretrained or checkpoint"
    ):
        teacher_of(config, model, load_data("digits"))

"""The loss terms: at their poles, at equal logits, and compared with their formulas."""

from __future__ import annotations

import math

import pytest
import torch

from ofbnas.models.bimask import BiMask
from ofbnas.models.tokens import local_norm
from ofbnas.training.losses import (
    adaptive_one_hot,
    budget_pull,
    distillation,
    feature_distance,
    importance_norm,
    similarity_distance,
)


def test_one_hot_loss_in_the_middle_is_its_formula():
    p = torch.tensor([0.6, 0.3, 0.1])
    r = ((p - 1 / 3) ** 2).sum() / (2 / 3)
    angle = math.pi * (0.05 + 0.9 * r)
    expected = -(p * p.log()).sum() + 1 / (3 * math.tan(angle))
    torch.testing.assert_close(adaptive_one_hot(p, 3), expected)


@pytest.mark.parametrize("n", [2, 3, 28])
def test_equal_logits_cost_most_and_one_hot_least(n):
    logits = torch.zeros(n)
    logits[0] = 1.0
    along = [adaptive_one_hot((logits * t).softmax(0), n).item() for t in (0, 0.5, 1, 2, 4, 8, 200)]
    assert all(math.isfinite(value) for value in along)
    assert along == sorted(along, reverse=True)
    assert along[0] > 0 > along[-1]


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0, 1e4])
def test_the_gradient_is_finite_everywhere(scale):
    logits = (torch.tensor([3.0, 1.0, 2.0]) * scale).requires_grad_()
    adaptive_one_hot(logits.softmax(0), 3).backward()
    assert logits.grad.isfinite().all()
    if scale == 1.0:
        assert logits.grad[0] < 0 < logits.grad[1], "it pushes towards the most probable option"


def test_removed_options_do_not_count():
    mask = BiMask((1, 6), ((1,), (2, 4, 6)))
    mask.start_(torch.randn(6), torch.tensor([[1.0, 5.0, 0.5]]))
    mask.keep_only_(torch.tensor([[True, False, True]]))
    loss = adaptive_one_hot(mask.probabilities(), mask.num_alive)
    torch.testing.assert_close(loss, adaptive_one_hot(torch.tensor([1.0, 0.5]).softmax(0), 2))
    loss.backward()
    assert mask.logits.grad.isfinite().all()


def test_importance_norm_is_the_sum_of_gates():
    mask = BiMask((2, 3), ((1, 2), (1, 3)))
    mask.start_(torch.zeros(6), mask.logits)
    assert importance_norm(mask.gate()).item() == pytest.approx(3.0)


def test_the_budget_pulls_from_both_sides_and_the_multiplier_adds_to_it():
    for gap, sign in ((0.2, 1), (-0.2, -1)):
        x = torch.tensor(gap, requires_grad=True)
        budget_pull(x, 5.0, torch.tensor(0.0)).backward()
        assert x.grad.item() == pytest.approx(2 * 5 * gap) and x.grad.sign() == sign
    x = torch.tensor(0.2, requires_grad=True)
    budget_pull(x, 5.0, torch.tensor(7.0)).backward()
    assert x.grad.item() == pytest.approx(2 + 7)


def test_distillation_is_least_at_the_teacher_and_scales_with_temperature():
    teacher = torch.tensor([[2.0, 0.0, -1.0]])
    student = teacher.clone().requires_grad_()
    distillation(student, teacher, 2.0).backward()
    assert student.grad.abs().max() < 1e-6
    assert distillation(torch.zeros(1, 3), teacher, 2.0) > distillation(teacher, teacher, 2.0) == 0


def test_hard_distillation_learns_the_predicted_class():
    teacher, student = torch.tensor([[0.1, 0.2, 0.0]]), torch.tensor([[1.0, 2.0, 3.0]])
    expected = torch.nn.functional.cross_entropy(student, torch.tensor([1]))
    torch.testing.assert_close(distillation(student, teacher, 5.0, hard=True), expected)


def test_features_are_compared_on_the_channels_that_were_kept():
    teacher = torch.randn(2, 3, 6)
    channels = torch.tensor([0, 2, 5])
    assert feature_distance(3 * teacher[..., channels], teacher, channels).abs() < 1e-6, (
        "scale does not matter"
    )
    assert feature_distance(-teacher[..., channels], teacher, channels).item() == pytest.approx(2.0)


def test_likeness_compares_features_of_any_width():
    student = torch.randn(4, 6)
    turned = student @ torch.linalg.qr(torch.randn(6, 6))[0]
    assert similarity_distance(student, 3 * turned).item() == pytest.approx(0, abs=1e-12)
    assert similarity_distance(student, torch.randn(4, 9)) > 0.01


def test_local_norm_is_the_window_around_each_pixel():
    torch.manual_seed(0)
    images = torch.randn(2, 1, 6, 6)
    out = local_norm(images, 3)
    for row, column in ((0, 0), (0, 3), (2, 2), (5, 5)):
        window = images[1, 0, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
        expected = (images[1, 0, row, column] - window.mean()) / (
            window.var(unbiased=True) + 1e-6
        ).sqrt()
        torch.testing.assert_close(out[1, 0, row, column], expected, rtol=1e-4, atol=1e-5)


def test_local_norm_of_a_flat_image_is_zero():
    assert local_norm(torch.full((1, 1, 8, 8), 7.0), 3).abs().max() < 1e-2

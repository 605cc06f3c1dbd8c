"""Quality of features: alignment that sees neither scale nor rotation, and nearest neighbours."""

from __future__ import annotations

import pytest
import torch
from conftest import make
from torch import nn

from ofbnas.training.features import LinearCka, knn_top1, linear_cka


def cka(*batches) -> float:
    aligned = LinearCka()
    for features, others in batches:
        aligned.add(features, others)
    return aligned.value()


def test_alignment_sees_neither_scale_nor_rotation_nor_shift():
    features = torch.randn(50, 8)
    rotation = torch.linalg.qr(torch.randn(8, 8)).Q
    assert cka((features, 3 * features @ rotation + 5)) == pytest.approx(1)
    assert cka((features, torch.randn(50, 8))) < 0.8
    assert cka((features, torch.ones(50, 3))) == 0


def test_alignment_in_batches_is_that_of_all_images_by_its_definition():
    x, y = torch.randn(40, 6), torch.randn(40, 9)
    x_centred, y_centred = x - x.mean(0), y - y.mean(0)
    gram_x, gram_y = x_centred @ x_centred.T, y_centred @ y_centred.T
    expected = (gram_x * gram_y).sum() / (gram_x.norm() * gram_y.norm())
    assert cka((x[:15], y[:15]), (x[15:], y[15:])) == pytest.approx(float(expected), rel=1e-5)


def test_a_model_is_aligned_with_itself(data):
    model = make(num_classes=0)
    assert linear_cka(model, model, data.val) == pytest.approx(1)


def test_neighbours_tell_digits_apart(data):
    class Pixels(nn.Module):
        def forward(self, images):
            return images.flatten(1)

    assert knn_top1(Pixels(), data.val, data.test) > 85
    assert knn_top1(Pixels(), data.val, data.test, batch_size=50) > 85


def test_the_nearest_neighbours_weigh_most():
    class Split:
        def __init__(self, images, labels):
            self.images, self.labels = torch.tensor(images), torch.tensor(labels)

        def batches(self, size, shard=None):
            yield self.images, self.labels

    # Two of three neighbours have class 1, but that of class 0 is as the image itself.
    bank = Split([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], [0, 1, 1])
    assert knn_top1(nn.Identity(), bank, Split([[1.0, 0.0]], [0])) == 100
    assert knn_top1(nn.Identity(), bank, Split([[1.0, 0.0]], [1])) == 0

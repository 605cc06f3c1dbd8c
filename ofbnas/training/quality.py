"""How good a network is: accuracy or, for a model without a classifier, the quality of features."""

from __future__ import annotations

from torch import nn

from ofbnas.training.data import Data
from ofbnas.training.evaluation import evaluate
from ofbnas.training.features import has_classifier, knn_top1, linear_cka


def on_test(model: nn.Module, data: Data) -> dict[str, float]:
    """A network's quality on the test images, by columns of the table."""
    if has_classifier(model):
        accuracy = evaluate(model, data.test)
        return {"top1": accuracy.top1, "top5": accuracy.top5}
    return {"knn_top1": knn_top1(model, data.val, data.test)}


def on_validation(model: nn.Module, parent: nn.Module, data: Data) -> dict[str, float]:
    """A network's quality on the validation images, by columns of the table."""
    if has_classifier(model):
        return {"val_top1": evaluate(model, data.val).top1}
    return {"cka": linear_cka(model, parent, data.val)}


def of_epoch(model: nn.Module, data: Data) -> dict[str, float]:
    """A network's quality on the validation images, by columns of the history.

    There is none for a model without a classifier.
    """
    if not has_classifier(model):
        return {}
    accuracy = evaluate(model, data.val)
    return {"val_top1": accuracy.top1, "val_loss": accuracy.loss}


def of_parent(parent: nn.Module, data: Data) -> dict[str, float]:
    """The parent's quality, by columns of the table."""
    if has_classifier(parent):
        return {
            "parent_top1": evaluate(parent, data.test).top1,
            "parent_val_top1": evaluate(parent, data.val).top1,
        }
    return {"parent_knn_top1": knn_top1(parent, data.val, data.test)}

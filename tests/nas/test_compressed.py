"""ofbnas.compress: a model in memory, its name and arguments read from it, in one call."""

from __future__ import annotations

import pytest
import timm
import torch
from conftest import KWARGS, NAME, SWIN, make, make_swin
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import ofbnas
from ofbnas.errors import InputError
from ofbnas.models.identity import check_identity, check_outputs, identify

QUICK = {"compensation": {"images": 64}, "training_free": {"scoring_images": 64}}


@pytest.fixture(scope="module")
def loaders():
    """The digits in a user's own loaders."""
    digits = ofbnas.load_data("digits")
    train = TensorDataset(digits.train.images[:256], digits.train.labels[:256])
    test = TensorDataset(digits.test.images, digits.test.labels)
    return DataLoader(train, 64, shuffle=True), DataLoader(test, 100)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        (NAME, {"depth": 1, "img_size": 32}),
        (NAME, KWARGS),
        (NAME, KWARGS | {"class_token": False, "global_pool": "avg", "qkv_bias": False}),
        (NAME, KWARGS | {"reg_tokens": 2, "init_values": 1e-3, "mlp_ratio": 2.0}),
        (NAME, KWARGS | {"img_size": (8, 16), "num_classes": 0}),
        ("deit_tiny_patch16_224", {"num_classes": 7, "img_size": 32}),
        ("swin_tiny_patch4_window7_224", SWIN | {"in_chans": 1, "num_classes": 10}),
        ("beit_base_patch16_224", {"depth": 1, "embed_dim": 24, "num_heads": 3, "img_size": 32}),
    ],
)
def test_a_model_tells_its_name_and_arguments(name, kwargs):
    model = timm.create_model(name, **kwargs).eval()
    read = identify(model)
    assert read[0] == name and read[1]["num_classes"] == kwargs.get("num_classes", 1000)
    check_identity(model, *read)
    check_outputs(model, *read)


def test_one_call_compresses_a_model(loaders, tmp_path):
    model = make().train()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    result = ofbnas.compress(model, *loaders, macs=0.6, settings=QUICK)
    assert 0.55 * result.parent_macs < result.macs <= 0.6 * result.parent_macs
    assert result.params == sum(parameter.numel() for parameter in result.model.parameters())
    assert result.parent_params == sum(parameter.numel() for parameter in model.parameters())
    assert model.training and not result.model.training
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())

    digits = ofbnas.load_data("digits")
    assert result.accuracy == ofbnas.evaluate(result.model, digits.test)
    assert result.parent_accuracy == ofbnas.evaluate(model, digits.test)
    share = f"{100 * result.macs / result.parent_macs:.1f} %"
    assert repr(result).startswith(f"{NAME} compressed to {share} of its multiply-accumulates (")
    assert f"to {result.accuracy.top1:.2f} %" in repr(result)

    folder = result.save(tmp_path / "small")
    images = digits.test.images[:4]
    assert torch.equal(ofbnas.load_subnet(folder)(images), result.model(images))
    with pytest.raises(InputError, match="exists already"):
        result.save(folder)


def test_a_metric_of_ones_own_measures_both_models(loaders):
    def margin(outputs, labels):
        return outputs.gather(1, labels[:, None]).mean()

    model, digits = make(), ofbnas.load_data("digits").test
    result = ofbnas.compress(model, *loaders, macs=0.6, settings=QUICK, metric=margin)
    for one, measured in ((result.model, result.metric), (model, result.parent_metric)):
        with torch.no_grad():
            assert measured == pytest.approx(float(margin(one(digits.images), digits.labels)))
    assert result.accuracy is None
    assert f"metric {result.parent_metric:.4g} to {result.metric:.4g}" in repr(result)


class Uncounted(nn.Module):
    """A model that is not timm's."""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"macs": 0}, "macs is 0: input should be greater than 0"),
        ({"settings": {"epoch": 3}}, "unknown key epoch; did you mean epochs?"),
        ({"name": NAME}, "name and kwargs go together"),
        ({"name": NAME, "kwargs": KWARGS | {"depth": 3}}, "lacks blocks.2"),
        ({"model": Uncounted()}, "a Uncounted does not say which of timm's models it is"),
    ],
)
def test_what_cannot_be_compressed_is_refused_before_anything_runs(loaders, arguments, message):
    model = arguments.pop("model", None) or make()
    with pytest.raises(InputError) as error:
        ofbnas.compress(model, *loaders, **arguments)
    assert message in str(error.value), error.value


def test_a_model_that_computes_something_else_is_refused(loaders):
    """An activation leaves no trace in names and shapes of tensors."""
    with pytest.raises(InputError, match="but computes something else"):
        ofbnas.compress(make(act_layer=nn.ReLU), *loaders)


def test_a_model_that_was_changed_by_hand_is_refused(loaders):
    model = make_swin()
    model.head.fc = nn.Linear(32, 4)
    with pytest.raises(InputError, match=r"head.fc.bias has shape \(4,\), expected \(10,\)"):
        ofbnas.compress(model, *loaders)

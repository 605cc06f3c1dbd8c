"""Models of torchvision and transformers as timm's, with the real packages and random weights."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
import torchvision
from torch import nn
from torchvision.models import swin_transformer, vision_transformer
from transformers import (
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

import ofbnas
from ofbnas.errors import InputError
from ofbnas.models.axes import axes
from ofbnas.models.identity import check_identity, check_outputs, identify

SIZES = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 16,
    "patch_size": 4,
}
VIT = SIZES | {"intermediate_size": 56, "num_channels": 1, "num_labels": 5}


def torchvision_vit(**changes):
    return vision_transformer.VisionTransformer(16, 4, 2, 3, 24, 56, num_classes=5, **changes)


def torchvision_swin(**changes):
    given = {"num_classes": 5, **changes}
    return swin_transformer.SwinTransformer([4, 4], 8, [2, 2], [2, 4], [2, 2], **given)


def swin_v2():
    parts = {
        "block": swin_transformer.SwinTransformerBlockV2,
        "downsample_layer": swin_transformer.PatchMergingV2,
    }
    return torchvision_swin(**parts)


def shaken(model):
    """With weights large enough to matter, also those that begin as 0 or 1."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.mark.parametrize(
    ("make", "outputs"),
    [
        (torchvision_vit, None),
        (torchvision_swin, None),
        (lambda: ViTForImageClassification(ViTConfig(**VIT)), "logits"),
        (
            lambda: ViTModel(ViTConfig(**VIT | {"qkv_bias": False, "layer_norm_eps": 1e-6})),
            "last_hidden_state",
        ),
        (lambda: Dinov2Model(Dinov2Config(**SIZES, layerscale_value=0.5)), "last_hidden_state"),
        (lambda: Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**SIZES)), "last_hidden_state"),
    ],
    ids=[
        "torchvision vit",
        "torchvision swin",
        "vit",
        "vit backbone",
        "dinov2",
        "dinov2 registers",
    ],
)
@torch.no_grad()
def test_timms_model_computes_the_same_and_can_be_searched(make, outputs):
    model = shaken(make())
    before = copy.deepcopy(model.state_dict())
    made = ofbnas.to_timm(model.train(), img_size=32)
    assert model.training and all(torch.equal(model.state_dict()[n], t) for n, t in before.items())
    assert type(made).__module__.startswith("timm.") and not made.training

    channels, height, width = made.pretrained_cfg["input_size"]
    if outputs is not None:
        channels, height, width = model.config.num_channels, 16, 16
    elif isinstance(model, vision_transformer.VisionTransformer):
        height = width = 16
    else:
        height = width = 32
    images = torch.randn(3, channels, height, width)
    expected = model.eval()(images)
    if outputs is not None:
        expected = getattr(expected, outputs)
        expected = expected if outputs == "logits" else expected[:, 0]
    torch.testing.assert_close(made(images), expected, rtol=1e-5, atol=2e-5)

    assert any(axis.kind == "mlp" for axis in axes(made))
    check_identity(made, *identify(made))
    check_outputs(made, *identify(made))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: torchvision_vit(representation_size=8), "representation_size has no twin"),
        (swin_v2, "Swin V2 is not mapped"),
        (
            lambda: ViTForImageClassification(ViTConfig(**VIT | {"hidden_act": "relu"})),
            "outputs that differ by",
        ),
        (
            lambda: ViTForImageClassification(ViTConfig(**VIT | {"layer_norm_eps": 0.1})),
            r"its norms have eps 0\.1 and timm's 1e-06: to have timm's",
        ),
        (lambda: Dinov2Model(Dinov2Config(**SIZES, use_swiglu_ffn=True)), "use_swiglu_ffn"),
        (lambda: Dinov2ForImageClassification(Dinov2Config(**SIZES)), "give its dinov2"),
        (lambda: torchvision.models.resnet18(num_classes=2), "torchvision.ResNet cannot be made"),
        (lambda: timm.create_model("test_vit"), "timm.VisionTransformer cannot be made"),
    ],
)
def test_the_rest_is_refused_with_the_reason(make, reason):
    with pytest.raises(InputError, match=reason):
        ofbnas.to_timm(shaken(make()), img_size=32)


def test_a_tensor_that_timm_does_not_have_is_named():
    model = torchvision_vit()
    model.encoder.more = nn.Linear(2, 2)
    with pytest.raises(InputError, match=r"the tensor encoder\.more\.weight has no place"):
        ofbnas.to_timm(model)

"""The supernet is the model: masks scale its weights, and new masks change nothing at all."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from conftest import SPACE, make
from torch import nn

from ofbnas.errors import InputError
from ofbnas.models.axes import Axis, axes
from ofbnas.models.supernet import Supernet
from ofbnas.models.tokens import MaskedImageModelling


def closed(model: nn.Module, space=SPACE) -> Supernet:
    """A supernet in the middle of a search: random importance, options and blend."""
    supernet = Supernet(model, axes(model, space))
    torch.manual_seed(3)
    for mask in supernet.masked().values():
        mask.start_(torch.randn_like(mask.importance), torch.randn_like(mask.logits))
        mask.blend.fill_(0.4)
    return supernet


def test_fusing_leaves_the_supernet_as_it_is(model, images):
    supernet = closed(model)
    expected = supernet(images).detach()
    assert torch.equal(supernet.fuse()(images), expected)
    assert torch.equal(supernet(images), expected)


def test_masked_weights_equal_masked_activations(model, images):
    supernet = closed(model)
    masks = {name: mask().detach() for name, mask in supernet.masked().items()}
    expected = supernet(images)

    def scale(mask, copies=1):
        return lambda module, inputs, output: output * mask.flatten().repeat(copies)

    model.patch_embed.register_forward_hook(scale(masks["embed"]))
    with torch.no_grad():
        model.pos_embed.mul_(masks["embed"].flatten())
        model.cls_token.mul_(masks["embed"].flatten())
    for index, block in enumerate(model.blocks):
        block.attn.qkv.register_forward_hook(scale(masks[f"blocks.{index}.attn"], copies=3))
        block.mlp.fc1.register_forward_hook(scale(masks[f"blocks.{index}.mlp"]))
    torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5)


def test_the_residual_path_carries_x_itself(model, images):
    """With attention and MLP silenced, the masked embedding reaches the last norm unchanged."""
    with torch.no_grad():
        for block in model.blocks:
            for layer in (block.attn.proj, block.mlp.fc2):
                layer.weight.zero_()
                layer.bias.zero_()
    supernet = closed(model)
    features = supernet.passes(images)[0]
    embedded = supernet.fuse().patch_embed(images) + supernet.weights()["pos_embed"][:, 1:]
    torch.testing.assert_close(features[:, 1:], model.norm(embedded))


@pytest.mark.parametrize(
    "keys", [["embed"], ["heads"], ["head_size"], ["mlp"], ["embed", "mlp"], ["heads", "mlp"]]
)
def test_any_subset_of_axes_can_be_searched(model, images, keys):
    supernet = closed(model, {key: SPACE[key] for key in keys})
    supernet(images).sum().backward()
    for name, mask in supernet.masked().items():
        assert mask.importance.grad.abs().sum() > 0, name
        assert mask.logits.grad.abs().sum() > 0, name


def test_a_mask_value_of_exactly_zero_works(model, images):
    supernet = closed(model)
    with torch.no_grad():
        for mask in supernet.masked().values():
            mask.blend.zero_()
            mask.logits.fill_(-1e4)
            mask.logits[0, 0] = 0
    assert all((mask() == 0).any() for mask in supernet.masked().values())
    loss = supernet(images).square().sum()
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in supernet.parameters())


def test_one_head_can_be_searched(images):
    supernet = closed(make(num_heads=1), {"heads": [1], "head_size": [4, 8, 16]})
    supernet(images).sum().backward()
    assert list(supernet.masked()) == ["blocks.0.attn", "blocks.1.attn"]


def test_hidden_patches_keep_their_position(model, images):
    supernet = Supernet(model, pmim=MaskedImageModelling(model))
    hidden = torch.arange(16).expand(3, -1)
    features = supernet.passes(images, hidden)[0][:, 1:]
    assert torch.allclose(features[0], features[1]), "all patches hidden: images cannot differ"
    assert features[0].std(0).min() > 1e-3, "but patches do, by their position"


def test_hidden_patches_are_those_asked_for(model, images):
    supernet = Supernet(model, pmim=MaskedImageModelling(model))
    hidden = torch.stack(
        [torch.arange(8), torch.arange(8, 16), torch.arange(8, 16)]
    )  # upper half, lower, lower
    changed = images.clone()
    changed[:, :, :4] += 1
    same = [
        torch.equal(a, b)
        for a, b in zip(*(supernet.passes(x, hidden)[1] for x in (images, changed)), strict=True)
    ]
    assert same == [True, False, False]


def test_no_hook_stays_behind(model, images):
    supernet = Supernet(model, pmim=MaskedImageModelling(model))
    supernet.passes(images, torch.arange(16).expand(3, -1))
    assert not model.patch_embed._forward_hooks
    assert torch.equal(supernet(images), model(images))


def test_gradient_checkpointing_is_refused(model):
    model.set_grad_checkpointing(True)
    with pytest.raises(InputError, match="set_grad_checkpointing"):
        Supernet(model)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("vit_dwee_patch16_reg1_gap_256", "blocks.0.attn is a DiffAttention, expected Attention"),
        (
            "vit_pwee_patch16_reg1_gap_256",
            "blocks.0 is a ParallelScalingBlock, expected Block or ResPostBlock",
        ),
        ("vit_small_resnet26d_224", "running_mean is a running statistic"),
        ("hiera_small_abswin_256", "widens without a projection"),
        ("resnet18", "ResNet cannot be searched: expected one of timm's Beit, "),
    ],
)
def test_what_cannot_be_searched_is_refused_by_name(name, reason):
    with torch.device("meta"):
        model = timm.create_model(name)
    with pytest.raises(InputError, match=reason):
        axes(model)


def test_other_families_are_refused_by_name():
    with pytest.raises(InputError, match="Linear cannot be searched"):
        axes(nn.Linear(2, 2))
    with torch.device("meta"):
        namesake = torchvision.models.vit_b_16()
    with pytest.raises(
        InputError, match=r"torchvision\.\S+VisionTransformer .* not a class of timm's"
    ):
        axes(namesake)


def test_options_beyond_the_model_are_refused(model):
    with pytest.raises(InputError, match=r"mlp the sizes \[65\].* has 64"):
        axes(model, {"mlp": [65]})


def test_axes_are_named_as_timm_names_modules(model_axes: list[Axis]):
    assert [axis.name for axis in model_axes] == [
        "embed", "blocks.0.attn", "blocks.0.mlp", "blocks.1.attn", "blocks.1.mlp",
    ]  # fmt: skip


def test_the_residual_mask_silences_a_channel_in_the_whole_stream(model, images):
    """With the mask on everything that blocks write, a masked channel is 0 up to the last norm."""
    for residual in (False, True):
        supernet = Supernet(model, axes(model, SPACE), residual_mask=residual)
        mask = supernet.masked()["embed"]
        mask.start_(
            torch.arange(16.0), torch.tensor([[0.0, -1e4, -1e4]])
        )  # the first 8 by rank: channels 8 to 15
        stream = []
        handle = model.norm.register_forward_pre_hook(
            lambda module, inputs, stream=stream: stream.append(inputs[0])
        )
        supernet(images)
        handle.remove()
        assert bool((stream[0][..., :8] == 0).all()) is residual
        assert (stream[0][..., 8:] != 0).any()

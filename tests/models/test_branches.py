"""Attentions, MLPs and blocks that are gone cost nothing, and the rest computes on without them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import KWARGS, NAME
from contracts import MEMBERS, counted, images_for, make
from test_shrink import shrink
from torch import nn

from ofbnas.errors import InputError
from ofbnas.models.architecture import Architecture, decode_sizes, encode_sizes
from ofbnas.models.axes import GONE, Axis, Shares, axes, check_sizes
from ofbnas.models.bimask import BiMask
from ofbnas.models.cost import cost_of
from ofbnas.models.subnet import Subnet, load, save
from ofbnas.models.supernet import Supernet

SPACE = {"heads": Shares(0, 1, 0.5), "mlp": Shares(0, 1, 0.5)}
# Members that add to the stream in different ways: norms before, after and inside, scales as modules
# and as parameters, positions that blocks are called with, windows, stages.
KINDS = (
    "vit",
    "vit with norms after",
    "beit 3",
    "eva 02 with norms after",
    "dinov3",
    "beit",
    "cait",
    "swin",
    "swin v2 cr",
    "hiera",
)


def without(model: nn.Module, model_axes: list[Axis], names: list[str]) -> nn.Module:
    """The model without some branches."""
    nothing = torch.zeros(GONE, dtype=torch.long)
    return shrink(model, model_axes, dict.fromkeys(names, nothing))


def chosen(model: nn.Module, model_axes: list[Axis], gone: list[str]) -> Supernet:
    """A supernet that has decided: some axes are gone, the others are as wide as they were."""
    supernet = Supernet(model, model_axes).eval()
    for name, mask in supernet.masked().items():
        full = torch.zeros_like(mask.alive)
        full[-1, -1] = True
        mask.keep_only_(mask.widths == 0 if name in gone else full)
    return supernet


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("every", [1, 3])
def test_what_is_gone_costs_nothing_and_equals_a_mask_that_chose_it(kind, every):
    model = make(MEMBERS[kind])
    images, model_axes = images_for(model), axes(model, SPACE)
    gone = [axis.name for axis in model_axes if axis.branch][::every]
    small = without(model, model_axes, gone)
    sizes = {axis.name: GONE if axis.name in gone else axis.size for axis in model_axes}
    assert {axis.name: axis.size for axis in axes(small, SPACE)} == sizes
    assert not any(name.startswith(tuple(gone)) for name, _ in small.named_parameters())

    supernet = chosen(model, model_axes, gone)
    outputs = small(images)
    torch.testing.assert_close(supernet(images), outputs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(supernet.shrunk()[0](images), outputs, rtol=1e-4, atol=1e-4)

    at_sizes = list(sizes.values())
    params = cost_of(model, model_axes, "params")
    assert params.of(at_sizes) == sum(p.numel() for p in small.parameters())
    macs = counted(small)
    assert cost_of(model, model_axes).of(at_sizes) == macs
    assert cost_of(small, axes(small)).of(at_sizes) == macs


def test_blocks_without_branches_are_passed_over_in_all_of_timms_forward_passes(tmp_path):
    model = make(MEMBERS["vit"])
    small = without(model, axes(model, SPACE), ["blocks.0.attn", "blocks.0.mlp", "blocks.1.mlp"])
    images = images_for(model)
    assert isinstance(small.blocks[0], nn.Identity)
    outputs = small(images)
    features, maps = small.forward_intermediates(images)
    torch.testing.assert_close(small.forward_head(features), outputs)
    assert len(maps) == 2
    mask = torch.ones(17, 17, dtype=torch.bool)
    torch.testing.assert_close(small(images, attn_mask=mask), outputs)
    exported = torch.export.export(small, (images,)).module()
    torch.testing.assert_close(exported(images), outputs)
    small.set_grad_checkpointing()
    small.train()(images).sum().backward()
    assert all(parameter.grad is not None for parameter in small.parameters())


def test_a_subnet_without_branches_is_saved_and_loaded(tmp_path):
    model = make(MEMBERS["vit"])
    model_axes = axes(model, SPACE)
    gone = ["blocks.0.attn", "blocks.1.attn", "blocks.1.mlp"]
    sizes = {axis.name: GONE if axis.name in gone else axis.size for axis in model_axes}
    small = without(model, model_axes, gone)
    units = {name: [] for name in gone}
    save(Subnet(Architecture(NAME, KWARGS, sizes), small, units), tmp_path / "subnet")
    images = images_for(model)
    assert torch.equal(load(tmp_path / "subnet").model(images), small(images))

    kinds = {axis.name: axis.kind for axis in model_axes}
    parent = {axis.name: axis.size for axis in model_axes}
    encoded = encode_sizes(sizes, kinds)
    assert encoded["blocks"][1] == {"heads": 0, "head_size": 0, "mlp": 0}
    assert decode_sizes(encoded, kinds, parent) == sizes


@pytest.mark.parametrize(
    ("kind", "name", "size"),
    [
        ("vit", "embed", GONE),
        ("vit", "blocks.0.attn", (0, 4)),
        ("vit side by side", "blocks.0.attns.0.attn", GONE),
        ("hiera", "blocks.1.attn", GONE),
    ],
)
def test_what_a_block_needs_cannot_go(kind, name, size):
    model_axes = axes(make(MEMBERS[kind]))
    sizes = {axis.name: axis.size for axis in model_axes} | {name: size}
    with pytest.raises(InputError, match=f"architecture has {name} at "):
        check_sizes(model_axes, sizes)


@pytest.mark.parametrize(
    ("kind", "space", "message"),
    [
        (
            "vit side by side",
            {"heads": [0, 2]},
            "gives heads the size 0, but blocks.0.attns.0.attn",
        ),
        ("siglip", {"mlp": [0, 4]}, "gives mlp the size 0, but attn_pool.mlp of this model cannot"),
        ("vit", {"head_size": [0, 4]}, "gives head_size the size 0, but blocks.0.attn"),
        ("vit", {"embed": Shares(0, 1, 0.5)}, "gives embed shares from 0"),
    ],
)
def test_a_space_that_would_remove_it_is_refused(kind, space, message):
    with pytest.raises(InputError, match=message):
        axes(make(MEMBERS[kind]), space)


def test_shares_from_0_begin_above_it_where_a_block_needs_the_axis():
    found: dict[str, Any] = {axis.name: axis for axis in axes(make(MEMBERS["siglip"]), SPACE)}
    assert found["attn_pool.mlp"].options[1] == (32, 64)
    assert found["blocks.0.mlp"].options[1] == (0, 32, 64)


def test_no_heads_of_any_size_are_one_option():
    mask = BiMask((4, 8), ((0, 2, 4), (2, 4, 8)))
    assert mask.num_alive == 7
    assert torch.equal(mask(), torch.ones(4, 8))
    mask.start_(torch.randn(32), torch.zeros(3, 3))
    expected = mask.expected_size()
    torch.testing.assert_close(expected.gone, torch.tensor(1 / 7))
    torch.testing.assert_close(mask.stays(), torch.tensor(6 / 7))
    torch.testing.assert_close(expected.units, mask.sparsity().sum())
    mask.keep_only_(mask.widths == 0)
    assert mask.widest == GONE
    assert not mask().any()
    assert mask.kept().shape == GONE

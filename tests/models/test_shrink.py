"""Removing units equals zeroing them, where that is exact; gradients and moments follow parameters."""

from __future__ import annotations

import pytest
import torch
from conftest import SPACE, make
from torch import nn

from ofbnas.models.axes import Axis, all_bindings, at_sizes, axes
from ofbnas.models.bimask import BiMask
from ofbnas.models.moments import Shrink, load_moments, moments
from ofbnas.models.shrink import bare_copy, load_, shapes_at, take
from ofbnas.models.supernet import Supernet
from ofbnas.training.recipe import adamw

KEPT = {
    "MLP units": ("blocks.0.mlp", torch.tensor([[1, 2, 5, 30, 63]])),
    "heads": ("blocks.1.attn", torch.tensor([[0, 1, 2, 3], [12, 13, 14, 15]])),
    "head channels": ("blocks.1.attn", torch.tensor([[0, 3], [4, 5], [9, 11], [14, 15]])),
    "heads and channels": ("blocks.0.attn", torch.tensor([[5, 6], [8, 9]])),
}


def shrink(model: nn.Module, model_axes: list[Axis], kept: dict[str, torch.Tensor]) -> nn.Module:
    resized = at_sizes(model_axes, {name: tuple(units.shape) for name, units in kept.items()})
    small = bare_copy(model)
    load_(small, resized, take(dict(model.named_parameters()), model_axes, kept))
    return small


def zero(model: nn.Module, model_axes: list[Axis], kept: dict[str, torch.Tensor]) -> None:
    """Zero the removed units in every masked slice."""
    with torch.no_grad():
        for axis, binding in all_bindings(model_axes):
            if binding.masked and axis.name in kept:
                mask = torch.zeros(axis.units)
                mask[kept[axis.name].flatten()] = 1
                tensor = model.get_parameter(binding.tensor)
                view = [1] * tensor.ndim
                view[binding.dim] = -1
                tensor.mul_(mask.repeat(binding.copies).view(view))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("case", KEPT)
def test_shrinking_equals_zeroing(model, model_axes, images, case, fused):
    for block in model.blocks:
        block.attn.fused_attn = fused
    name, units = KEPT[case]
    small = shrink(model, model_axes, {name: units})
    zero(model, model_axes, {name: units})
    torch.testing.assert_close(small(images), model(images), rtol=1e-4, atol=1e-5)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())


def test_every_description_follows_the_widths(model, images):
    model_axes = axes(model, SPACE)
    kept = {"embed": torch.arange(0, 16, 2)[None], "blocks.0.attn": KEPT["heads and channels"][1]}
    small = shrink(model, model_axes, kept)
    assert small(images).shape == (3, 10)
    assert small.embed_dim == small.num_features == 8
    assert all(
        norm.normalized_shape == (8,) for norm in small.modules() if isinstance(norm, nn.LayerNorm)
    )
    attention = small.blocks[0].attn
    assert (attention.num_heads, attention.head_dim, attention.attn_dim) == (2, 2, 4)
    assert attention.scale == pytest.approx(2**-0.5)
    assert (attention.qkv.in_features, attention.qkv.out_features, attention.proj.in_features) == (
        8,
        12,
        4,
    )
    assert [axis.size for axis in axes(small, {})][:2] == [(1, 8), (2, 2)]


def test_shapes_are_known_before_anything_is_built(model):
    model_axes = axes(model, SPACE)
    kept = {"embed": torch.arange(0, 16, 2)[None], "blocks.1.mlp": torch.arange(48)[None]}
    sizes = {
        axis.name: tuple(kept[axis.name].shape) if axis.name in kept else axis.size
        for axis in model_axes
    }
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    small = shrink(model, model_axes, kept)
    assert shapes_at(shapes, model_axes, sizes) == {
        name: tuple(p.shape) for name, p in small.named_parameters()
    }


def test_moments_follow_their_parameters():
    """A step after a shrink moves the remaining weights as the same step without the shrink would.

    Without the biases of keys: their gradient is pure rounding error, which Adam amplifies.
    """
    model = make(qkv_bias=False)
    model_axes = axes(model, SPACE)
    kept = {"blocks.0.mlp": torch.tensor([[0, 2, 3]])}
    images, labels = torch.randn(8, 1, 8, 8), torch.randint(0, 10, (8,))

    def step(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()

    zero(model, model_axes, kept)
    before = adamw(model.parameters(), 1e-3)
    for _ in range(3):
        step(model, before)
        zero(model, model_axes, kept)
    small = shrink(model, model_axes, kept)
    after = adamw(small.parameters(), 1e-3)
    held = moments([before], dict(model.named_parameters()))
    state = Shrink({}, {}, axes=model_axes, kept=kept).moments(held)
    load_moments([after], dict(small.named_parameters()), state)
    step(model, before)
    step(small, after)
    moved = take(dict(model.named_parameters()), model_axes, kept)
    for name, parameter in small.named_parameters():
        torch.testing.assert_close(parameter.detach(), moved[name], msg=name, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("power", "factor"), [(1, 0.5**0.5), (-1, 0.5**-0.5), (-2, 2.0)])
def test_queries_are_rescaled_with_the_head_size_and_their_moments_inversely(
    model, model_axes, power, factor
):
    ones = {"blocks.1.attn.qkv.weight": torch.ones(48, 16)}
    taken = take(ones, model_axes, {"blocks.1.attn": KEPT["head channels"][1]}, power)[
        "blocks.1.attn.qkv.weight"
    ]
    query, key, value = taken.chunk(3)
    torch.testing.assert_close(query, torch.full_like(query, factor))
    assert torch.equal(key, torch.ones(8, 16)) and torch.equal(value, torch.ones(8, 16))


def test_an_old_loss_still_works_after_a_shrink(model, images):
    supernet = Supernet(model, axes(model, SPACE))
    loss = supernet(images).square().mean()
    supernet.masked()["blocks.0.mlp"].keep_only_(torch.tensor([[True, False, False, False]]))
    smaller, kept = supernet.shrunk()
    loss.backward()
    assert supernet.model.blocks[0].mlp.fc1.weight.grad.shape == (64, 16)
    assert smaller.model.blocks[0].mlp.fc1.weight.grad is None
    assert kept["blocks.0.mlp"].shape == (1, 16)
    smaller(images).mean().backward()
    assert smaller.model.blocks[0].mlp.fc1.weight.grad.shape == (16, 16)


def test_shrinking_a_supernet_keeps_what_open_units_compute(model, images):
    """With lambda 0 and one option left, the mask is 1 on kept units and 0 elsewhere."""
    supernet = Supernet(model, axes(model, {"mlp": SPACE["mlp"], "heads": SPACE["heads"]}))
    for mask in supernet.masked().values():
        torch.manual_seed(0)
        mask.start_(torch.randn_like(mask.importance), torch.zeros_like(mask.logits))
        only = torch.zeros_like(mask.alive)
        only[-1, 0] = only[0, 0] = True
        mask.keep_only_(only & (mask.widths == mask.widths[only].min()))
    expected = supernet(images)
    smaller, kept = supernet.shrunk()
    torch.testing.assert_close(smaller(images), expected, rtol=1e-4, atol=1e-5)
    assert set(kept) == set(supernet.masked())
    assert all(isinstance(mask, BiMask) and mask.settled for mask in smaller.masked().values())


def test_the_embedding_axis_takes_the_decoder_along():
    from ofbnas.models.tokens import MaskedImageModelling

    model = make()
    supernet = Supernet(model, axes(model, SPACE), pmim=MaskedImageModelling(model))
    with torch.no_grad():
        supernet.pmim.mask_token.copy_(torch.arange(16.0))
    mask = supernet.masked()["embed"]
    mask.start_(torch.arange(16.0) % 2, mask.logits)  # only odd channels matter
    mask.keep_only_(torch.tensor([[True, False, False]]))
    smaller, _ = supernet.shrunk()
    assert smaller.pmim.mask_token.tolist() == [1, 3, 5, 7, 9, 11, 13, 15]
    assert smaller.pmim.project.weight.shape == (4, 8)

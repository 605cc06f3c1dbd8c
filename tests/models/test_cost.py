"""The cost model equals torch's own counter and the number of parameters, at any architecture."""

from __future__ import annotations

import pytest
import timm
import torch
from conftest import SPACE, make
from hypothesis import given, settings
from hypothesis import strategies as st
from test_shrink import shrink
from torch.utils.flop_counter import FlopCounterMode

from ofbnas.models.axes import axes
from ofbnas.models.bimask import ExpectedSize
from ofbnas.models.cost import cost_of, least_sizes, sizes_of


def counted(model) -> int:
    """Half of torch's FLOPs; attention is unfused, which every release can count."""
    for block in model.blocks:
        block.attn.fused_attn = False
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.randn(1, 1, 8, 8))
    return counter.get_total_flops() // 2


@settings(max_examples=20)
@given(st.data())
def test_any_architecture_costs_what_is_counted(data):
    model = make()
    model_axes = axes(model, SPACE)
    kept = {}
    for axis in model_axes:
        groups, channels = (data.draw(st.sampled_from(options)) for options in axis.options)
        rows = torch.arange(groups)[:, None] * axis.size[1]
        kept[axis.name] = rows + torch.arange(channels)
    small = shrink(model, model_axes, kept)
    sizes = [tuple(kept[axis.name].shape) for axis in model_axes]
    assert cost_of(model, model_axes, "macs").of(sizes) == counted(small)
    assert cost_of(model, model_axes, "params").of(sizes) == sum(
        p.numel() for p in small.parameters()
    )


def test_coefficients_do_not_change_when_units_are_removed(model, model_axes):
    kept = {"embed": torch.arange(8)[None], "blocks.0.mlp": torch.arange(16)[None]}
    small = shrink(model, model_axes, kept)
    for metric in ("macs", "params"):
        before, after = cost_of(model, model_axes, metric), cost_of(small, axes(small), metric)
        assert (before.linear == after.linear).all() and (before.quadratic == after.quadratic).all()
        assert before.constant == after.constant


def test_expected_cost_is_the_cost_at_whole_widths_and_differentiable(model, model_axes):
    cost = cost_of(model, model_axes, "macs")
    sizes = torch.tensor(least_sizes(model_axes), dtype=torch.float32)
    widths = sizes.prod(1).requires_grad_()
    expected = cost.expected()(ExpectedSize(widths, sizes[:, 0], torch.zeros(len(sizes))))
    assert expected.item() == cost.of(least_sizes(model_axes))
    expected.backward()
    assert (widths.grad > 0).all()


@pytest.mark.parametrize(
    ("name", "gmacs", "params"), [("deit_small_patch16_224", 4.599, 22_050_664)]
)
def test_published_sizes(name, gmacs, params):
    model = timm.create_model(name)
    model_axes = axes(model)
    full = sizes_of(model_axes)
    assert cost_of(model, model_axes, "macs").of(full) / 1e9 == pytest.approx(gmacs, abs=0.001)
    assert cost_of(model, model_axes, "params").of(full) == params


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("deit_tiny_patch16_224", 1_259_829_120),
        ("deit_small_patch16_224", 4_600_557_312),
        ("deit_base_patch16_224", 17_524_710_912),
    ],
)
def test_the_published_codes_formula_gives_its_totals(name, total):
    with torch.device("meta"):
        model_axes = axes(model := timm.create_model(name))
    cost = cost_of(model, model_axes, "reference_macs")
    assert cost.of(sizes_of(model_axes)) == total
    if name == "deit_small_patch16_224":
        smaller = {"embed": (1, 288), "attn": (4, 48), "mlp": (1, 960)}
        assert cost.of([smaller[axis.kind] for axis in model_axes]) == 2_058_833_664

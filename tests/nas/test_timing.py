"""Times of a plain ViT are sums of tables of its parts, and the exact choice takes them as a cost."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from conftest import SPACE, make, make_swin

from ofbnas.config import TimedOnConfig
from ofbnas.errors import InputError
from ofbnas.models.axes import GONE, axes
from ofbnas.models.bimask import ExpectedSize
from ofbnas.models.time_cost import TimeCost, TimeTables, check_timeable, interpolated
from ofbnas.nas.budget import choose, option_sizes, reachable
from ofbnas.nas.dynamic import Window
from ofbnas.nas.timing import filled, random_sizes, time_cost

LEVELS = {"embed": [8, 16], "heads": [1, 4], "head_size": [1, 4], "hidden": [16, 64]}


def tables(bend=0.0):
    """Times as multiply-accumulates would be, plus what is no straight line."""
    embed, heads, head_size, hidden = (np.array(each, float) for each in LEVELS.values())
    return TimeTables(
        **{name: np.array(each, float) for name, each in LEVELS.items()},
        rest=100 * embed,
        attention=50 + 4 * np.einsum("e,h,c->ehc", embed, heads, head_size + bend * head_size**2),
        mlp=30 + 2 * np.einsum("e,m->em", embed, hidden),
        full=1e6,
    )


def of_mac_like(sizes):
    """The time of `tables` in closed form."""
    (_, embed), *branches = sizes
    total = 100 * embed
    for groups, channels in branches[0::2]:
        total += 50 + 4 * embed * groups * channels if groups else 0
    for groups, channels in branches[1::2]:
        total += 30 + 2 * embed * channels if groups else 0
    return total


@pytest.fixture
def cost(model_axes):
    return TimeCost(model_axes, tables(), 1.0, of_measure)


def of_measure(sizes):
    return of_mac_like(list(sizes.values()))


def test_tables_are_exact_for_products_of_sizes_also_between_levels(cost, model_axes):
    generator = np.random.default_rng(0)
    for _ in range(20):
        sizes = list(random_sizes(model_axes, generator).values())
        assert cost.of(sizes) == of_mac_like(sizes) == cost.measured(sizes)
    gone = [sizes[0], GONE, (1, 16), (4, 4), GONE]
    assert cost.of(gone) == of_mac_like(gone)
    assert TimeTables.from_json(tables().to_json()).to_json() == tables().to_json()


def test_a_coordinate_beyond_the_ends_has_the_value_of_the_end():
    levels = [np.array([2.0, 4.0, 8.0])]
    values = np.array([1.0, 3.0, 4.0])
    at = torch.tensor([0.0, 2.0, 3.0, 6.0, 8.0, 99.0])
    assert interpolated(levels, values, [at]).tolist() == [1, 1, 2, 3.5, 4, 4]
    assert interpolated([np.array([2.0])], np.array([7.0]), [at]).tolist() == [7] * 6


def test_the_choice_by_time_is_the_best_in_the_window(cost, model_axes):
    sizes = option_sizes(model_axes)
    generator = np.random.default_rng(0)
    sizes = [options[generator.permutation(len(options))[:3]] for options in sizes]
    scores = [generator.normal(size=len(options)) for options in sizes]
    combinations = list(product(*(range(len(options)) for options in sizes)))
    costs = [cost.of([o[i] for o, i in zip(sizes, picks, strict=True)]) for picks in combinations]
    window = Window(int(np.quantile(costs, 0.3)), int(np.quantile(costs, 0.4)))
    totals = [
        sum(score[i] for score, i in zip(scores, picks, strict=True))
        for picks, value in zip(combinations, costs, strict=True)
        if value in window
    ]
    picks = choose(cost, sizes, scores, window)
    assert sum(s[i] for s, i in zip(scores, picks, strict=True)) == pytest.approx(max(totals))
    assert reachable(cost, sizes, window)
    assert not reachable(cost, sizes, Window(0, min(costs) - 1))


def test_the_expected_time_of_decided_sizes_is_their_time_and_has_a_gradient(cost, model_axes):
    sizes = torch.tensor([[1.0, 12], [2, 3], [1, 40], [0, 0], [1, 64]], requires_grad=True)
    gone = (sizes.detach().prod(1) == 0).float()
    expected = cost.expected()(ExpectedSize(sizes.prod(1), sizes[:, 0], gone))
    assert expected.item() == pytest.approx(of_mac_like(sizes.int().tolist()))
    expected.backward()
    assert (sizes.grad[[0, 1, 2], 1] > 0).all() and torch.isfinite(sizes.grad).all()


def test_bends_at_widths_between_are_those_of_the_parents_own_parts():
    wide = tables()
    bent = np.array([1.0, 1.1, 1.0])
    widths = np.array([8.0, 12.0, 16.0])
    narrow = TimeTables(
        embed=widths,
        heads=np.array([4.0]),
        head_size=np.array([4.0]),
        hidden=np.array([64.0]),
        rest=2 * 100 * widths,  # a machine half as fast at the time
        attention=2 * (bent * (50 + 4 * 16 * widths))[:, None, None],
        mlp=2 * (bent * (30 + 2 * 64 * widths))[:, None],
        full=2e6,
    )
    all_widths = filled(wide, narrow)
    assert np.allclose(all_widths.rest, 100 * widths)
    assert np.allclose(all_widths.attention[:, 0, 0], bent * (50 + 4 * widths))
    assert np.allclose(all_widths.mlp[:, 0], bent * (30 + 2 * 16 * widths))


def test_a_models_tables_are_measured_once(model, tmp_path):
    model_axes = axes(model, {"embed": [8, 16], "heads": [2, 4], "head_size": [4], "mlp": [64]})
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    on = TimedOnConfig(batch_size=2)
    first = time_cost(model, model_axes, on, tmp_path)
    (file,) = tmp_path.glob("*.json")
    stamp = file.stat().st_mtime_ns
    again = time_cost(model, model_axes, on, tmp_path)
    assert file.stat().st_mtime_ns == stamp
    full = [axis.size for axis in model_axes]
    assert first.of(full) == again.of(full) > 0
    assert first.measured(full) > 0
    assert first.tables.attention.shape == (2, 2, 1) and (first.tables.mlp > 0).all()
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)

    time_cost(model, model_axes, TimedOnConfig(batch_size=1), tmp_path)
    assert len(list(tmp_path.glob("*.json"))) == 2, "other conditions have tables of their own"


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (make_swin, "the family swin have parts"),
        (lambda: make(class_token=False, global_pool="map"), "it has no single embedding"),
    ],
)
def test_other_models_are_refused_with_the_reason(build, told):
    built = build()
    with pytest.raises(InputError, match=told):
        check_timeable(built, axes(built, {}))
    check_timeable(make(), axes(make(), SPACE))

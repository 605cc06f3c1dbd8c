"""The budget's exact choice, compared with brute force on made-up axes."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofbnas.errors import InputError
from ofbnas.models.cost import Branches, Cost
from ofbnas.nas.budget import choose, reachable, window_below
from ofbnas.nas.chain import best_along_chain, chain_order
from ofbnas.nas.dynamic import Window
from ofbnas.nas.knapsack import coupling_axes


def posed(draw, cost, sizes):
    """A problem: a cost, options with scores, and a window near their possible costs."""
    scores = [
        np.array(draw(st.lists(st.floats(-9, 0), min_size=len(w), max_size=len(w)))) for w in sizes
    ]
    costs = [cost.of(w) for w in product(*sizes)]
    limit = draw(st.integers(min(costs) - 5, max(costs) + 5))
    return cost, sizes, scores, Window(int(limit * draw(st.sampled_from([0.5, 0.9, 0.98]))), limit)


def with_branches(draw, cost, may_go):
    """The cost with costs that go with axes, along others that they share weights with."""
    count = len(cost.names)
    constant = may_go * np.array(draw(st.lists(st.integers(0, 9), min_size=count, max_size=count)))
    shares_weights = (cost.quadratic + cost.quadratic.T > 0) & ~np.eye(count, dtype=bool)
    linear = may_go[:, None] * shares_weights * draw(st.integers(0, 3))
    return replace(
        cost,
        constant=cost.constant + int(constant.sum()),
        linear=cost.linear + linear.sum(0),
        branches=Branches(constant, linear),
    )


def options(draw, may_go, most):
    """Sizes of an axis; it may be gone."""
    sizes = st.tuples(st.integers(1, most), st.integers(1, 6))
    if may_go:
        sizes = st.one_of(st.just((0, 0)), sizes)
    return np.array(sorted(draw(st.sets(sizes, min_size=1, max_size=5))))


@st.composite
def problems(draw):
    count = draw(st.integers(1, 4))
    linear = np.array(draw(st.lists(st.integers(0, 9), min_size=count, max_size=count)))
    quadratic = np.zeros((count, count), dtype=np.int64)
    for a in range(count):
        for b in range(a, count):
            quadratic[a, b] = draw(st.sampled_from([0, 0, 0, 1, 3]))
    grouped = np.array(draw(st.lists(st.integers(0, 9), min_size=count, max_size=count)))
    cost = Cost(
        tuple(f"axis {a}" for a in range(count)),
        draw(st.integers(0, 50)),
        linear,
        grouped,
        quadratic,
    )
    may_go = np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    sizes = [options(draw, goes, 4) for goes in may_go]
    return posed(draw, with_branches(draw, cost, may_go), sizes)


def brute_force(cost, sizes, scores, window):
    """The best total score of the architectures in the window; None if there is none."""
    inside = [
        sum(score[i] for score, i in zip(scores, picks, strict=True))
        for picks in product(*(range(len(w)) for w in sizes))
        if window.floor
        <= cost.of([w[i] for w, i in zip(sizes, picks, strict=True)])
        <= window.limit
    ]
    return max(inside, default=None)


@settings(max_examples=200)
@given(problems())
def test_the_choice_is_the_best_in_the_window(problem):
    cost, sizes, scores, window = problem
    picks, best = choose(cost, sizes, scores, window), brute_force(cost, sizes, scores, window)
    assert (picks is None) == (best is None)
    assert reachable(cost, sizes, window) == (best is not None)
    if picks is not None:
        assert (
            window.floor
            <= cost.of([w[i] for w, i in zip(sizes, picks, strict=True)])
            <= window.limit
        )
        assert sum(score[i] for score, i in zip(scores, picks, strict=True)) == pytest.approx(best)


@settings(max_examples=100)
@given(problems())
def test_an_empty_window_is_lowered_to_the_nearest_cost(problem):
    cost, sizes, _, window = problem
    below = [c for c in (cost.of(w) for w in product(*sizes)) if c <= window.limit]
    if not below:
        with pytest.raises(InputError, match="out of reach"):
            window_below(cost, sizes, window.limit, 0.02)
        return
    found = window_below(cost, sizes, window.limit, 0.02)
    assert found.limit == window.limit
    assert found.floor == np.ceil(window.limit * 0.98) or found.floor == max(below)


@st.composite
def chains(draw):
    """Two to four axes that share weights in a chain, and up to two that share weights with one of them."""
    stages = draw(st.integers(2, 4))
    others = [draw(st.integers(-1, stages - 1)) for _ in range(draw(st.integers(0, 2)))]
    count = stages + len(others)
    quadratic = np.zeros((count, count), dtype=np.int64)
    for a in range(stages):
        quadratic[a, a] = draw(st.integers(1, 2))
        if a:
            quadratic[a - 1, a] = draw(st.integers(1, 5))
    for index, stage in enumerate(others):
        if stage >= 0:
            quadratic[stage, stages + index] = draw(st.integers(1, 5))
    linear, grouped = (
        np.array(draw(st.lists(st.integers(0, 9), min_size=count, max_size=count)))
        for _ in ("linear", "grouped")
    )
    cost = Cost(
        tuple(f"axis {a}" for a in range(count)),
        draw(st.integers(0, 50)),
        linear,
        grouped,
        quadratic,
    )
    may_go = np.arange(count) >= stages
    sizes = [options(draw, goes, 3) for goes in may_go]
    return posed(draw, with_branches(draw, cost, may_go), sizes)


@settings(max_examples=200)
@given(chains())
def test_the_choice_along_a_chain_is_the_best_in_the_window(problem):
    cost, sizes, scores, window = problem
    symmetric = cost.quadratic + cost.quadratic.T
    chain = chain_order(symmetric, coupling_axes(symmetric))
    assert chain is not None
    picks, best = (
        best_along_chain(chain, cost, sizes, scores, window),
        brute_force(cost, sizes, scores, window),
    )
    assert (picks is None) == (best is None)
    if picks is not None:
        assert (
            window.floor
            <= cost.of([w[i] for w, i in zip(sizes, picks, strict=True)])
            <= window.limit
        )
        assert sum(score[i] for score, i in zip(scores, picks, strict=True)) == pytest.approx(best)


def test_many_states_are_merged_but_the_window_is_kept():
    rng = np.random.default_rng(0)
    none = np.zeros(8, dtype=np.int64)
    cost = Cost(
        tuple("abcdefgh"), 0, rng.integers(1_000, 90_000, 8), none, np.zeros((8, 8), dtype=np.int64)
    )
    sizes = [np.stack([np.ones(29, dtype=int), np.arange(1, 30)], axis=1) for _ in range(8)]
    scores = [rng.normal(size=29) for _ in range(8)]
    limit = cost.of([(1, 15)] * 8)
    picks = choose(cost, sizes, scores, Window(int(0.98 * limit), limit))
    assert 0.98 * limit <= cost.of([w[i] for w, i in zip(sizes, picks, strict=True)]) <= limit

"""Indicators compared with brute force, attainment compared with counting, and the verdicts."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pandas as pd
import pytest
from commands import ofbnas
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import write_row
from test_table import row

from ofbnas.errors import InputError
from ofbnas.table.compare import compare

REF = (10.0, 0.0)
points = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 99)), min_size=1, max_size=8)


def frame(pairs, seed=0) -> pd.DataFrame:
    values = {"gmacs": [float(x) for x, _ in pairs], "top1": [float(y) for _, y in pairs]}
    trials = list(range(len(pairs)))
    return pd.DataFrame(
        {"study": "s", "trial": trials, "seed": [seed + trial for trial in trials], **values}
    )


def nondominated(pairs):
    return [
        p for p in set(pairs) if not any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in pairs)
    ]


def both(a, b):
    groups, (pair,) = compare({"a": frame(a), "b": frame(b)}, ref=REF)
    return groups, pair


@settings(max_examples=60)
@given(points, points)
def test_indicators_are_those_of_their_definitions(a, b):
    _, pair = both(a, b)
    for one, other, place in ((a, b, 0), (b, a, 1)):
        ours, theirs = nondominated(one), nondominated(other)
        gap = max(min(max((x - u) / 10, (v - y) / 100) for x, y in ours) for u, v in theirs)
        assert pair.epsilon_additive[place] == pytest.approx(gap)
        factor = max(min(max(x / u, v / y) for x, y in ours) for u, v in theirs)
        assert pair.epsilon_multiplicative[place] == pytest.approx(factor)
        covered = sum(any(x <= u and y >= v for x, y in ours) for u, v in theirs)
        assert pair.coverage[place] == pytest.approx(covered / len(theirs))
        best = nondominated(a + b)
        away = [
            min(np.hypot(max(0, x - u) / 10, max(0, v - y) / 100) for x, y in ours) for u, v in best
        ]
        assert pair.igd_plus[place] == pytest.approx(np.mean(away))


@settings(max_examples=60)
@given(points, points)
def test_the_ranges_of_cost_are_where_more_is_attained(a, b):
    _, pair = both(a, b)

    def attained(pairs, cost):
        return max((y for x, y in pairs if x <= cost), default=-1)

    for cost in np.arange(0.5, 10, 0.5):
        gain = attained(a, cost) - attained(b, cost)
        for ranges, ahead in zip(pair.better, (gain > 0, gain < 0), strict=True):
            assert any(low <= cost < high for low, high in ranges) == ahead


@settings(max_examples=30)
@given(st.lists(points, min_size=2, max_size=4), st.lists(points, min_size=2, max_size=4))
def test_attainment_over_seeds_is_what_counting_gives(a, b):
    sides = [pd.concat([frame(run, seed=100 * i) for i, run in enumerate(runs)]) for runs in (a, b)]
    groups, (pair,) = compare({"a": sides[0], "b": sides[1]}, ref=REF)

    def share(runs, x, y):
        return np.mean([any(u <= x and v >= y for u, v in run) for run in runs])

    for group, runs in zip(groups, (a, b), strict=True):
        assert group.runs == len(runs)
        for name, least in (("best", 1 / len(runs)), ("median", 0.5), ("worst", 1.0)):
            surface = group.attained[name]
            for x, y in product(range(1, 10), range(1, 100, 7)):
                attained = any(u <= x and v >= y for u, v in surface)
                assert attained == (share(runs, x, y) >= least - 1e-9), (name, x, y)
    for x, y, difference in pair.attained_difference:
        assert difference == pytest.approx(share(a, x, y) - share(b, x, y))


def test_the_interval_holds_the_mean_and_narrows_with_more_seeds():
    generator = np.random.default_rng(0)

    def runs(count, offset):
        return pd.concat(
            frame([(x, offset + 5 * x + generator.normal()) for x in range(1, 9)], seed=100 * i)
            for i in range(count)
        )

    few, many = ({"a": runs(n, 30), "b": runs(n, 20)} for n in (3, 30))
    (narrow, _), (pair,) = compare(many, ref=REF)
    (wide, _), _ = compare(few, ref=REF)
    for group in (narrow, wide):
        assert group.per_run.low < group.per_run.mean < group.per_run.high
    assert narrow.per_run.high - narrow.per_run.low < wide.per_run.high - wide.per_run.low
    assert pair.difference.low > 0 and "a has the larger hypervolume beyond chance" in pair.verdict
    (_, _), (even,) = compare({"a": runs(10, 30), "b": runs(10, 30)}, ref=REF)
    assert "do not differ beyond chance" in even.verdict


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        ([(1, 50)], [(1, 50), (2, 40)], "a and b attain the same at every gmacs"),
        ([(1, 50)], [(2, 50)], "a is never worse than b, and better at gmacs 1 to 2"),
        ([(3, 50)], [(1, 60)], "b is never worse than a, and better at gmacs 1 to 10"),
        ([(1, 50)], [(3, 70)], "a is better at gmacs 1 to 3, b at 3 to 10"),
    ],
)
def test_the_verdict_says_where(a, b, verdict):
    assert both(a, b)[1].verdict == f"{verdict}; with one run on a side, chance is not ruled out."


def test_rows_beyond_the_reference_count_for_nothing():
    groups, _ = both([(1, 50), (20, 99)], [(1, 50)])
    assert groups[0].hypervolume == groups[1].hypervolume == pytest.approx(0.9 * 0.5)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(InputError, match="b has no row with both gmacs and top1"):
        compare({"a": frame([(1, 1)]), "b": frame([])}, ref=REF)
    with pytest.raises(InputError, match="bounds no area"):
        compare({"a": frame([(1, 1)]), "b": frame([(1, 1)])}, ref=(0, 0))


@pytest.fixture
def studies(tmp_path):
    for name, gain in (("one", 0), ("two", 5)):
        for seed in (0, 100):
            for trial in range(3):
                values = {
                    "gmacs": 1.0 + trial,
                    "val_top1": 50 + 4.0 * trial + gain + seed / 100,
                    "seed": seed + trial,
                }
                write_row(
                    tmp_path / f"{name}-{seed}", row(trial, study=name, parent_gmacs=4.0, **values)
                )
    return sorted(tmp_path.iterdir())


def test_studies_of_one_name_are_runs_of_one_search(studies):
    done = ofbnas("front", "compare", *studies, "--group", "study", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [(group["label"], group["runs"]) for group in found["groups"]] == [
        ("one", 2),
        ("two", 2),
    ]
    assert found["ref"] == [4.0, 0.0] and found["pairs"][0]["difference"]["mean"] < 0
    by_seed = json.loads(ofbnas("front", "show", *studies, "--group", "seed", "--json").stdout)
    assert [group["group"] for group in by_seed] == ["0", "100"]


def test_a_comparison_is_printed_with_its_verdict(studies):
    done = ofbnas("front", "compare", studies[0], studies[2], "--ref", "5", "10")
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert "between gmacs 5 GMACs, val_top1 10 and" in text
    assert f"{studies[2]} is never worse than {studies[0]}, and better at gmacs 1 to 5" in text
    done = ofbnas("front", "compare", studies[0])
    assert done.returncode == 2 and "a comparison needs two sides" in done.stderr


def test_groups_are_drawn(studies, tmp_path):
    out = tmp_path / "front.png"
    done = ofbnas("front", "plot", *studies, "--group", "study", "--out", out)
    assert done.returncode == 0, done.stderr
    assert out.stat().st_size > 10_000

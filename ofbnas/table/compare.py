"""Comparison of Pareto fronts: indicators, where one is better, and whether seeds explain it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import moocore
import numpy as np
import pandas as pd

from ofbnas.errors import InputError
from ofbnas.table.attainment import Corners, attained_difference, corners_of, runs_of, surface
from ofbnas.table.front import MAXIMISE, comparable_rows, default_quality, front
from ofbnas.table.indicators import (
    Points,
    Ranges,
    better_ranges,
    coverage,
    epsilon_additive,
    epsilon_multiplicative,
    igd_plus,
    volume_share,
)

SAMPLES = 2_000  # of the bootstrap
SURFACES = {"best": 0.0, "median": 50.0, "worst": 100.0}  # percentages of runs


@dataclass(frozen=True)
class Interval:
    """A mean, and the interval that holds it in 95 % of bootstrap samples."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Group:
    """One side of a comparison.

    Attributes:
        label: Its name.
        rows: Rows with both columns.
        front: Points of its front, (x, y), by ascending x.
        hypervolume: Of all its rows, as a share of the area between the reference point and no cost
            at 100 %.
        runs: Number of searches with seeds of their own: one study with several seeds, or several
            studies.
        per_run: The hypervolumes of its runs, None where there is one run.
        attained: Where there are several runs, the points that any, half, and all of them
            attain.
    """

    label: str
    rows: int
    front: Corners
    hypervolume: float
    runs: int
    per_run: Interval | None
    attained: dict[str, Corners] | None


@dataclass(frozen=True)
class Pair:
    """Two groups against each other.

    Epsilon and IGD+ are of fronts with costs divided by that of the reference point and qualities
    by 100. Epsilon and coverage are those of Zitzler et al. (2003), IGD+ that of Ishibuchi et al.
    (2015).

    Attributes:
        a: Label of the first.
        b: Label of the second.
        epsilon_additive: How far the first has to move to be as good as the second everywhere, and
            the reverse.
        epsilon_multiplicative: The same as a factor; None where a value is not above 0.
        coverage: Share of the second's front that the first equals or dominates, and the reverse.
        igd_plus: Distance of each to the front of both together.
        better: Ranges of cost (from, to) in which the first attains more than the second, and the
            reverse.
        difference: The first's mean hypervolume per run minus the second's, None unless both have
            several runs.
        attained_difference: Where both have several runs: points (x, y, d), where d is the share of
            the first's runs that attain the point minus that of the second's.
        verdict: The comparison in a sentence.
    """

    a: str
    b: str
    epsilon_additive: tuple[float, float]
    epsilon_multiplicative: tuple[float | None, float | None]
    coverage: tuple[float, float]
    igd_plus: tuple[float, float]
    better: tuple[Ranges, Ranges]
    difference: Interval | None
    attained_difference: list[tuple[float, float, float]] | None
    verdict: str


def compare(
    groups: Mapping[str, pd.DataFrame],
    *,
    x: str = "gmacs",
    y: str | None = None,
    ref: tuple[float, float],
    seed: int = 0,
) -> tuple[list[Group], list[Pair]]:
    """Compare groups of rows, each with each.

    Args:
        groups: Label to rows of architecture tables.
        x: Cost to minimize.
        y: Quality to maximize, in percent; by default that of `default_quality`.
        ref: The reference point (x, y); rows beyond it add nothing.
        seed: Seed of the bootstrap.

    Returns:
        The groups, and each pair of them.

    Raises:
        InputError: A group has no row with both columns, or the reference point bounds no area, or
            an area without a row.
    """
    y = y or default_quality(groups.values())
    cost, quality = ref
    area = cost * (100 - quality)
    if cost <= 0 or quality >= 100 or not math.isfinite(area):
        raise InputError(
            f"the reference point {x} {cost:g}, {y} {quality:g} bounds no area: "
            "give a cost above 0 and a quality below 100, both finite"
        )

    generator = np.random.default_rng(seed)
    sides = []
    for label, rows in groups.items():
        sides.append(_Side(label, rows, x, y, ref, generator))

    least = min(side.cheapest for side in sides)
    if least >= cost:
        raise InputError(
            f"the reference point {x} {cost:g} lies below all rows, so none counts: "
            f"give a cost above {least:g}"
        )

    compared_groups = [side.group() for side in sides]
    pairs = [_pair(a, b, x) for a, b in combinations(sides, 2)]
    return compared_groups, pairs


class _Side:
    """A group and the arrays that a comparison needs."""

    def __init__(
        self,
        label: str,
        rows: pd.DataFrame,
        x: str,
        y: str,
        ref: tuple[float, float],
        generator: np.random.Generator,
    ) -> None:
        axes = [x, y]
        best = front(rows, x=x, y=y)[axes]
        if best.empty:
            raise InputError(
                f"{label} has no row with both {x} and {y}: there is nothing to compare"
            )
        self.label = label
        self.ref = ref
        self.front = best.to_numpy(dtype=np.float64)
        self.volume = volume_share(self.front, ref)

        known = comparable_rows(rows, x, y)
        self.num_rows = len(known)
        self.runs = runs_of(known, x, y)
        self.several = len(self.runs) > 1

        # The bootstrap draws as many runs as there are, with replacement, and takes their mean.
        volumes = np.array([self.volume])
        if self.several:
            volumes = np.array([volume_share(run, ref) for run in self.runs])
        self.mean = float(volumes.mean())
        drawn = generator.choice(volumes, (SAMPLES, len(volumes)))
        self.samples = drawn.mean(1)

    @property
    def cheapest(self) -> float:
        """The least cost on the front."""
        return float(self.front[0, 0])

    @property
    def unit(self) -> Points:
        """The front with costs as shares of the reference point's, qualities as shares of 100."""
        return self.front / [self.ref[0], 100]

    def group(self) -> Group:
        """The group as it is returned."""
        per_run = None
        attained = None
        if self.several:
            per_run = _interval(self.mean, self.samples)
            attained = {}
            for name, percent in SURFACES.items():
                attained[name] = surface(self.runs, percent)
        return Group(
            label=self.label,
            rows=self.num_rows,
            front=corners_of(self.front),
            hypervolume=self.volume,
            runs=len(self.runs),
            per_run=per_run,
            attained=attained,
        )


def _pair(a: _Side, b: _Side, x: str) -> Pair:
    """Two sides against each other."""
    difference = None
    differences = None
    if a.several and b.several:
        difference = _interval(a.mean - b.mean, a.samples - b.samples)
        differences = attained_difference(a.runs, b.runs)

    most = a.ref[0]
    better = (
        better_ranges(a.front, b.front, most),
        better_ranges(b.front, a.front, most),
    )

    # IGD+ is measured against the front of both sides together.
    both = np.concatenate([a.unit, b.unit])
    is_best = moocore.is_nondominated(both, maximise=MAXIMISE)
    best = both[is_best]
    return Pair(
        a=a.label,
        b=b.label,
        epsilon_additive=(
            epsilon_additive(a.unit, b.unit),
            epsilon_additive(b.unit, a.unit),
        ),
        epsilon_multiplicative=(
            epsilon_multiplicative(a.unit, b.unit),
            epsilon_multiplicative(b.unit, a.unit),
        ),
        coverage=(
            coverage(a.front, b.front),
            coverage(b.front, a.front),
        ),
        igd_plus=(
            igd_plus(a.unit, best),
            igd_plus(b.unit, best),
        ),
        better=better,
        difference=difference,
        attained_difference=differences,
        verdict=_verdict(a, b, better, difference, x),
    )


def _interval(mean: float, samples: Points) -> Interval:
    """A mean with the interval of its bootstrap samples."""
    low, high = np.quantile(samples, [0.025, 0.975])
    return Interval(mean, float(low), float(high))


def _verdict(
    a: _Side,
    b: _Side,
    better: tuple[Ranges, Ranges],
    difference: Interval | None,
    x: str,
) -> str:
    """The comparison in a sentence: where each is better, and whether chance explains it."""
    where = _where_better(a.label, b.label, better, x)
    if difference is None:
        return f"{where}; with one run on a side, chance is not ruled out."
    if difference.low <= 0 <= difference.high:
        return f"{where}; over runs, their hypervolumes do not differ beyond chance."
    ahead = a.label if difference.mean > 0 else b.label
    return f"{where}; over runs, {ahead} has the larger hypervolume beyond chance (95 %)."


def _where_better(a: str, b: str, better: tuple[Ranges, Ranges], x: str) -> str:
    """At which costs each side is better."""
    a_wins = _text_of(better[0])
    b_wins = _text_of(better[1])
    if a_wins and b_wins:
        return f"{a} is better at {x} {a_wins}, {b} at {b_wins}"
    if a_wins:
        return f"{a} is never worse than {b}, and better at {x} {a_wins}"
    if b_wins:
        return f"{b} is never worse than {a}, and better at {x} {b_wins}"
    return f"{a} and {b} attain the same at every {x}"


def _text_of(ranges: Ranges) -> str:
    """Ranges as text; empty where there are none."""
    texts = [f"{low:.4g} to {high:.4g}" for low, high in ranges]
    return ", ".join(texts)

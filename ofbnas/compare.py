"""Comparison of Pareto fronts: indicators, where one is better, and what chance between seeds explains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import moocore
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ofbnas.errors import InputError
from ofbnas.front import comparable, front
from ofbnas.indicators import (
    MAXIMISE,
    Points,
    Ranges,
    best_below,
    better_ranges,
    coverage,
    epsilon_additive,
    epsilon_multiplicative,
    igd_plus,
    volume_share,
)

SAMPLES = 2_000  # of the bootstrap
SURFACES = {"best": 0.0, "median": 50.0, "worst": 100.0}


@dataclass(frozen=True)
class Span:
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
        hypervolume: Of all its rows, as a share of the area between the reference point and no cost at 100 %.
        runs: Searches with a seed of their own: studies of one name and several seeds, or several studies.
        per_run: The hypervolumes of its runs, None where there is one.
        attained: Where there are several runs, the points that the best, half, and the worst of them attain.
    """

    label: str
    rows: int
    front: list[tuple[float, float]]
    hypervolume: float
    runs: int
    per_run: Span | None
    attained: dict[str, list[tuple[float, float]]] | None


@dataclass(frozen=True)
class Pair:
    """Two groups against each other.

    Epsilon and IGD+ are of fronts with costs divided by that of the reference point and qualities by 100. Epsilon and
    coverage are those of Zitzler et al. (2003), IGD+ that of Ishibuchi et al. (2015).

    Attributes:
        a: Label of the first.
        b: Label of the second.
        epsilon_additive: By how much the first has to move to be as good as the second everywhere, and the reverse.
        epsilon_multiplicative: By which factor; None where something is not above 0.
        coverage: Share of the second's front that the first equals or beats, and the reverse.
        igd_plus: Distance of each to the best of both.
        better: Ranges of cost (from, to) in which the first attains more than the second, and the reverse.
        difference: The first's mean hypervolume of a run less the second's, None unless both have several runs.
        attained_difference: Where both have several runs: points (x, y, d), where d is the share of the first's runs
            that attain the point less that of the second's (the EAF difference; Lopez-Ibanez et al., 2010).
        verdict: A sentence.
    """

    a: str
    b: str
    epsilon_additive: tuple[float, float]
    epsilon_multiplicative: tuple[float | None, float | None]
    coverage: tuple[float, float]
    igd_plus: tuple[float, float]
    better: tuple[Ranges, Ranges]
    difference: Span | None
    attained_difference: list[tuple[float, float, float]] | None
    verdict: str


def compare(
    groups: Mapping[str, pd.DataFrame],
    *,
    x: str = "gmacs",
    y: str = "top1",
    ref: tuple[float, float],
    seed: int = 0,
) -> tuple[list[Group], list[Pair]]:
    """Compare groups of rows, each with each.

    Args:
        groups: Label to rows of architecture tables.
        x: A cost to be small.
        y: A quality to be large, in percent.
        ref: The reference point (x, y); rows beyond it count for nothing.
        seed: Of the bootstrap.

    Raises:
        InputError: A group has no row with both columns, or the reference point bounds no area.
    """
    if not (ref[0] > 0 and ref[1] < 100):
        raise InputError(f"the reference point {x} {ref[0]:g}, {y} {ref[1]:g} bounds no area: give a cost above 0")
    generator = np.random.default_rng(seed)
    sides = [_Side(label, rows, x, y, ref, generator) for label, rows in groups.items()]
    return [side.group() for side in sides], [_pair(a, b, x) for a, b in combinations(sides, 2)]


class _Side:
    """A group with what a comparison needs of it."""

    def __init__(
        self, label: str, rows: pd.DataFrame, x: str, y: str, ref: tuple[float, float], generator: np.random.Generator
    ) -> None:
        best = front(rows, x=x, y=y)[[x, y]]
        if best.empty:
            raise InputError(f"{label} has no row with both {x} and {y}: there is nothing to compare")
        self.label, self.ref = label, ref
        known = comparable(rows, x, y)
        keys = [known["study"], known["seed"] - known["trial"]]  # a run is of one study and seed
        run = known.groupby(keys, sort=False, dropna=False).ngroup().to_numpy()
        points = known[[x, y]].to_numpy(dtype=np.float64)
        self.rows = len(points)
        self.runs = [points[run == number] for number in range(run.max() + 1)]
        self.front = best.to_numpy(dtype=np.float64)
        self.several = len(self.runs) > 1
        self.volume = volume_share(self.front, ref)
        volumes = (
            np.array([volume_share(points, ref) for points in self.runs]) if self.several else np.array([self.volume])
        )
        self.samples = generator.choice(volumes, (SAMPLES, len(volumes))).mean(1)
        self.mean = float(volumes.mean())

    @property
    def unit(self) -> Points:
        """The front with costs as shares of the reference's, and qualities of 100."""
        return self.front / [self.ref[0], 100]

    def group(self) -> Group:
        surfaces = {name: _surface(self.runs, percent) for name, percent in SURFACES.items()} if self.several else None
        per_run = _span(self.mean, self.samples) if self.several else None
        front = _tuples(self.front)
        return Group(self.label, self.rows, front, self.volume, len(self.runs), per_run, surfaces)


def _pair(a: _Side, b: _Side, x: str) -> Pair:
    """Two sides against each other."""
    several = a.several and b.several
    difference = _span(a.mean - b.mean, a.samples - b.samples) if several else None
    better = better_ranges(a.front, b.front, a.ref[0]), better_ranges(b.front, a.front, a.ref[0])
    factors = epsilon_multiplicative(a.unit, b.unit), epsilon_multiplicative(b.unit, a.unit)
    both = np.concatenate([a.unit, b.unit])
    best = both[moocore.is_nondominated(both, maximise=MAXIMISE)]
    return Pair(
        a=a.label,
        b=b.label,
        epsilon_additive=(epsilon_additive(a.unit, b.unit), epsilon_additive(b.unit, a.unit)),
        epsilon_multiplicative=factors,
        coverage=(coverage(a.front, b.front), coverage(b.front, a.front)),
        igd_plus=(igd_plus(a.unit, best), igd_plus(b.unit, best)),
        better=better,
        difference=difference,
        attained_difference=_attained_difference(a, b) if several else None,
        verdict=_verdict(a, b, better, difference, x),
    )


def _surface(runs: list[Points], percent: float) -> list[tuple[float, float]]:
    """The points that at least so many percent of the runs attain; 0 is the best run at each place."""
    points, sets = _stacked(runs)
    found = moocore.eaf(points * [1, -1], sets, percentiles=[max(percent, 100 / len(runs))])
    return sorted(_tuples(found[:, :2] * [1, -1]))


def _attained_difference(a: _Side, b: _Side) -> list[tuple[float, float, float]]:
    """The points where the shares of runs that attain them differ between a and b, and by how much."""
    corners = moocore.eafdiff(*(np.column_stack(_stacked(side.runs)) for side in (a, b)), maximise=MAXIMISE)[:, :2]
    shares = [np.mean([_attains(run, corners) for run in side.runs], axis=0) for side in (a, b)]
    return [(*point, float(d)) for point, d in zip(_tuples(corners), shares[0] - shares[1], strict=True)]


def _attains(run: Points, corners: Points) -> NDArray[np.bool_]:
    """Whether some point of a run costs no more and is no worse, for each corner."""
    best = run[moocore.is_nondominated(run, maximise=MAXIMISE)]
    return best_below(best[best[:, 0].argsort()], corners[:, 0]) >= corners[:, 1]


def _stacked(runs: list[Points]) -> tuple[Points, Points]:
    """The points of all runs and the number of each one's run."""
    return np.concatenate(runs), np.repeat(np.arange(1.0, len(runs) + 1), [len(run) for run in runs])


def _span(mean: float, samples: Points) -> Span:
    low, high = np.quantile(samples, [0.025, 0.975])
    return Span(mean, float(low), float(high))


def _tuples(points: Points) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in points]


def _verdict(a: _Side, b: _Side, better: tuple[Ranges, Ranges], span: Span | None, x: str) -> str:
    """What follows, in a sentence."""
    wins, losses = better
    if not wins and not losses:
        where = f"{a.label} and {b.label} attain the same at every {x}"
    elif not losses or not wins:
        winner, loser, ranges = (a, b, wins) if wins else (b, a, losses)
        where = f"{winner.label} is never worse than {loser.label}, and better at {x} {_told(ranges)}"
    else:
        where = f"{a.label} is better at {x} {_told(wins)}, {b.label} at {_told(losses)}"
    if span is None:
        return f"{where}; with one run on a side, chance is not ruled out."
    if span.low <= 0 <= span.high:
        return f"{where}; over runs, their hypervolumes do not differ beyond chance."
    ahead = a.label if span.mean > 0 else b.label
    return f"{where}; over runs, {ahead} has the larger hypervolume beyond chance (95 %)."


def _told(ranges: list[tuple[float, float]]) -> str:
    return ", ".join(f"{low:.4g} to {high:.4g}" for low, high in ranges)

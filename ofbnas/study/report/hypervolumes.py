"""The hypervolume of a study's front after each of its trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ofbnas.table.columns import COSTS, QUALITIES

if TYPE_CHECKING:
    import pandas as pd


def hypervolumes(table: pd.DataFrame, metrics: Sequence[str]) -> list[tuple[int, float]]:
    """What share of the possible hypervolume the front has after each trial.

    Args:
        table: As `read_table` returns it.
        metrics: The study's objectives; hypervolumes are of one cost and one quality.

    Returns:
        Trials that have both, by ascending number, with the share after each; empty where the
        objectives are others.
    """
    # Imported here, since they import pandas, which commands that only read settings do without.
    import pandas as pd

    from ofbnas.table.front import comparable_rows, front, hypervolume, reference_point

    costs = [name for name in metrics if name in COSTS and name in table.columns]
    qualities = [name for name in metrics if name in QUALITIES and name in table.columns]
    if len(metrics) != 2 or len(costs) != 1 or len(qualities) != 1:
        return []
    x = costs[0]
    y = qualities[0]

    ref = reference_point(table, x=x)
    rows = comparable_rows(table, x, y).sort_values("trial")
    best = rows.iloc[:0][[x, y]]
    share = 0.0
    shares = []
    for trial, cost, quality in zip(rows["trial"], rows[x], rows[y], strict=True):
        # A trial that some trial equals or dominates changes nothing, which spares most of the work.
        if not ((best[x] <= cost) & (best[y] >= quality)).any():
            point = pd.DataFrame({x: [cost], y: [quality]})
            best = front(pd.concat([best, point]), x=x, y=y)
            share = hypervolume(best, x=x, y=y, ref=ref).share
        shares.append((int(trial), share))
    return shares

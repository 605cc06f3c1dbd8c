"""How the time of tables and fronts grows with the number of rows, compared with other libraries.

    python benchmarks/table.py [--rows 10000 100000 1000000]

Times are the best of three runs unless noted. Other libraries get the points in memory, in the form
that they need; Optuna is measured up to 10,000 rows only.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd

from ofbnas.table.columns import Row
from ofbnas.table.compare import compare
from ofbnas.table.front import front, reference_point
from ofbnas.table.store import read_table, write_row, write_table

OPTUNA_ROWS = 10_000


def best_of(run: Callable[[], object], times: int = 3) -> float:
    """Seconds of the fastest of several runs."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return min(taken)


def synthetic(rows: int) -> pd.DataFrame:
    """A table whose accuracy rises with the logarithm of the cost, with noise.

    The noise is small, so that many rows are on the front.
    """
    generator = np.random.default_rng(0)
    gmacs = generator.uniform(0.2, 4.6, rows)
    blocks = [{"heads": 6, "head_size": 64, "mlp": 1536}] * 12
    return pd.DataFrame(
        {
            "arch_id": [f"{number:012x}" for number in range(rows)],
            "study": "made",
            "trial": np.arange(rows),
            "status": "complete",
            "model": "deit_small_patch16_224",
            "model_kwargs": "{}",
            "architecture": [{"embed": [384], "blocks": blocks}] * rows,
            "gmacs": gmacs,
            "params": (gmacs * 4.8e6).astype(np.int64),
            "parent_gmacs": 4.6,
            "parent_top1": 79.8,
            "top1": 76 + 3 * np.log(gmacs) - generator.exponential(0.02, rows),
            "seed": 7 + np.arange(rows),
            "dataset": "imagenet-1k",
        }
    )


def pandas_front(table: pd.DataFrame) -> pd.DataFrame:
    """The front by sorting and a running maximum."""
    ordered = table.sort_values(["gmacs", "top1"], ascending=[True, False])
    best_before = ordered["top1"].cummax().shift(fill_value=-np.inf)
    return ordered[ordered["top1"] > best_before]


def optuna_front(table: pd.DataFrame) -> None:
    """The front by Optuna: a study with the rows as trials, and its best trials."""
    points = zip(table["gmacs"], table["top1"], strict=True)
    study = optuna.create_study(directions=["minimize", "maximize"])
    study.add_trials([optuna.create_trial(values=list(point)) for point in points])
    start = time.perf_counter()
    study.best_trials  # noqa: B018  # a property that computes the front
    print(f"  (of Optuna's time, best_trials takes {time.perf_counter() - start:.3g} s)")


def measure(rows: int, folder: Path) -> dict[str, Any]:
    """All figures of a table with so many rows."""
    table = synthetic(rows)
    file = folder / f"{rows}.parquet"
    write_table(table, file)
    halves = {
        "a": table.iloc[::2].reset_index(drop=True),
        "b": table.iloc[1::2].reset_index(drop=True),
    }
    ref = reference_point(table)
    columns = ["arch_id", "gmacs", "top1"]
    cheap = [("gmacs", "<", 0.3)]
    best = front(table)
    same = set(best["arch_id"]) == set(pandas_front(table)["arch_id"])
    figures: dict[str, Any] = {
        "rows": rows,
        "front_points": len(best),
        "same_front_as_pandas": same,
        "megabytes": round(file.stat().st_size / 1e6, 1),
        "read_all_s": best_of(lambda: read_table(file)),
        "read_three_columns_s": best_of(lambda: read_table(file, columns=columns)),
        "read_filtered_s": best_of(lambda: read_table(file, where=cheap)),
        "front_s": best_of(lambda: front(table)),
        "compare_s": best_of(lambda: compare(halves, ref=ref)),
        "pandas_front_s": best_of(lambda: pandas_front(table)),
    }
    if rows <= OPTUNA_ROWS:
        figures["optuna_front_s"] = best_of(lambda: optuna_front(table), times=1)

    row = replace(Row.of(dict(table.iloc[0])), trial=rows)
    study = folder / f"study-{rows}"
    figures["append_row_s"] = best_of(lambda: write_row(study, row), times=10)
    return figures


def main() -> None:
    """Measure tables of several sizes, and print a line of JSON for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    sizes = parser.parse_args().rows
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        for rows in sizes:
            figures = measure(rows, Path(folder))
            for name, figure in figures.items():
                if isinstance(figure, float):
                    figures[name] = round(figure, 4)
            print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()

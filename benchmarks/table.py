"""How fronts and tables grow: time over rows, beside other ways to the same front.

    python benchmarks/table.py [--rows 10000 100000 1000000]

Each figure is the best of three. Peers get the points in memory as they need them; Optuna's stops at 10,000 rows.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import pandas as pd

from ofbnas.compare import compare
from ofbnas.front import front, reference_point
from ofbnas.table import read_table, write_row, write_table

OPTUNA_ROWS = 10_000


def best_of(run: Callable[[], object], times: int = 3) -> float:
    """Seconds of the fastest of several runs."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return min(taken)


def made(rows: int) -> pd.DataFrame:
    """A table with a front of some thousand points: accuracy rises with the logarithm of the cost, with noise."""
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
    return ordered[ordered["top1"] > ordered["top1"].cummax().shift(fill_value=-np.inf)]


def optuna_front(table: pd.DataFrame) -> int:
    """The front by Optuna: a study with the rows as trials, and its best trials."""
    study = optuna.create_study(directions=["minimize", "maximize"])
    study.add_trials([optuna.create_trial(values=[x, y]) for x, y in zip(table["gmacs"], table["top1"], strict=True)])
    start = time.perf_counter()
    study.best_trials  # noqa: B018
    print(f"  (of Optuna's, {time.perf_counter() - start:.3g} s are best_trials)")
    return len(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    asked = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        for rows in asked.rows:
            table, file = made(rows), Path(folder) / f"{rows}.parquet"
            write_table(table, file)
            half = {"a": table.iloc[::2].reset_index(drop=True), "b": table.iloc[1::2].reset_index(drop=True)}
            point = reference_point(table)
            same = set(front(table)["arch_id"]) == set(pandas_front(table)["arch_id"])
            figures = {
                "rows": rows,
                "front_points": len(front(table)),
                "same_front_as_pandas": same,
                "megabytes": round(file.stat().st_size / 1e6, 1),
                "read_all_s": best_of(lambda: read_table(file)),
                "read_three_columns_s": best_of(lambda: read_table(file, columns=["arch_id", "gmacs", "top1"])),
                "read_filtered_s": best_of(lambda: read_table(file, where=[("gmacs", "<", 0.3)])),
                "front_s": best_of(lambda: front(table)),
                "compare_s": best_of(lambda: compare(half, ref=point)),
                "pandas_front_s": best_of(lambda: pandas_front(table)),
            }
            if rows <= OPTUNA_ROWS:
                figures["optuna_front_s"] = best_of(lambda: optuna_front(table), 1)
            row = dict(table.iloc[0]) | {"trial": rows}
            study = Path(folder) / f"study-{rows}"
            figures["append_row_s"] = best_of(lambda: write_row(study, row), 10)
            print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}), flush=True)


if __name__ == "__main__":
    main()

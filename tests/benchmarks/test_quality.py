"""benchmarks/quality.py on a small parent: rows of each kind, and that results are not run again."""

from __future__ import annotations

import pandas as pd
import pytest
import quality
from conftest import ROOT
from quality_picture import PICTURES, described
from quality_tables import read, tables
from running import write

RESULTS = ROOT / "benchmarks" / "results"
ROWS = (
    "default",
    "cut in steps, untrained",
    "uniform, compensated",
    "blocks alike, means of default",
    "Torch-Pruning, isomorphic",
)


@pytest.mark.slow
def test_rows_of_each_kind_lie_in_the_budget_and_are_run_once(tmp_path, capsys):
    results = tmp_path / "results"
    settings = {
        "parents": str(write(tmp_path)),
        "budgets": "0.6",
        "rows": ";".join(ROWS),
        "seeds": 1,
        "share": 1.0,
        "epochs": 1,
        "lr": 2e-3,
        "distilled": False,
        "against": "default",
        "out": results,
        "idle": False,
    }
    quality.main(**settings, only_print=False)
    printed = capsys.readouterr().out
    files = {file: file.stat().st_mtime_ns for file in results.iterdir()}
    table = pd.concat(pd.read_parquet(file) for file in files)
    assert set(table["row"]) == set(ROWS)
    assert table["macs_share"].between(0.5, 0.6).all(), table[["row", "macs_share"]]
    assert table["top1"].gt(20).all(), table[["row", "top1"]]
    assert all(f"| {row} |" in printed for row in ROWS)

    quality.main(**settings, only_print=False)
    again = capsys.readouterr().out
    assert printed.endswith(again), "nothing was run, only printed"
    assert {file: file.stat().st_mtime_ns for file in results.iterdir()} == files


def test_the_picture_shows_the_results():
    for mode in ("light", "dark"):
        picture = (PICTURES / f"quality-{mode}.svg").read_text()
        assert described(read(RESULTS)) in picture, "run python tools/generate.py"


def test_the_readme_quotes_the_results():
    """Its table has the means at 15 % of the multiply-accumulates, of both parents."""
    results = read(RESULTS)
    shown = results[(results["budget"] == 0.15) & ~results["distilled"]]
    means = shown.groupby(["row", "parent"])["top1"].mean()
    rows = {
        "ofbnas, default": "default",
        "uniform sizes, with ofbnas' compensation": "uniform, compensated",
        "Torch-Pruning, global": "Torch-Pruning, global",
        "uniform sizes": "uniform",
    }
    readme = (ROOT / "README.md").read_text()
    for label, row in rows.items():
        assert f"| {label} | {means[row, 'idle']:.1f} | {means[row, 'vit']:.1f} |" in readme


def test_the_page_of_benchmarks_shows_the_results():
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    for table in tables(read(RESULTS), "default"):
        assert table in page, "run python tools/generate.py"

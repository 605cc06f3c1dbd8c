"""Benchmarks that others run on machines with a GPU: they run here too, with tiny models."""

from __future__ import annotations

import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import PATIENCE
from conftest import ROOT

BENCHMARKS = ROOT / "benchmarks"


@pytest.mark.slow
def test_the_gpu_benchmark_runs_small_without_ray_and_optuna(tmp_path):
    out = tmp_path / "gpu.parquet"
    pq.write_table(pa.table({"what": ["measured before"], "value": [1.0]}), out)
    code = f"""
import runpy, sys
sys.modules["ray"] = sys.modules["optuna"] = None
sys.path.insert(0, {str(BENCHMARKS)!r})
sys.argv = ["gpu.py", "--small", "--out", {str(out)!r}]
runpy.run_path({str(BENCHMARKS / "gpu.py")!r}, run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    table = pq.read_table(out).to_pandas()
    assert table["what"][0] == "measured before"
    table = table[1:]
    for what in (
        "step, dense",
        "step, search / dense",
        "step, search, half shrunk / dense",
        "speed, found / parent",
        "compression to 50 %",
    ):
        assert (table["what"] == what).any(), what
    assert (table["value"] > 0).all() and table.notna().drop(columns="git_commit").all(axis=None)
    assert "syncs: left out, as only a GPU has them" in done.stdout
    for value in table["model"].unique():
        assert value in done.stdout

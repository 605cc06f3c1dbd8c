"""How well tables of parts predict the time of whole networks that are not in them.

python benchmarks/latency_prediction.py deit_tiny_patch16_224 --threads 1 --batch 1
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np

from ofbnas.config import TimedOnConfig
from ofbnas.models.axes import axes as axes_of
from ofbnas.models.create import create_parent
from ofbnas.models.time_cost import TimeCost
from ofbnas.nas.timing import Timer, calibrated, measured_tables, random_sizes

SEED = 1  # that of the networks by which the scale is calibrated is 0


def predicted(name: str, on: TimedOnConfig, networks: int) -> dict[str, Any]:
    """The errors of predictions, as shares of the measured times of random networks."""
    model = create_parent(name, {}).eval()
    axes = axes_of(model)
    timer = Timer(model, axes, on)
    started = time.monotonic()
    tables = measured_tables(timer)
    scale = calibrated(timer, tables)
    seconds = time.monotonic() - started

    cost = TimeCost(axes, tables, scale, lambda _: 0.0)
    generator = np.random.default_rng(SEED)
    sizes = [random_sizes(axes, generator) for _ in range(networks)]
    *shares, _ = timer.times(sizes)
    measured = tables.full * np.array(shares)
    errors = np.array([cost.of(list(each.values())) for each in sizes]) / measured - 1
    return {
        "model": name,
        "conditions": str(timer.conditions),
        "seconds_of_tables": round(seconds, 1),
        "parent_ms": round(tables.full / 1e6, 3),
        "networks": networks,
        "least_ms": round(measured.min() / 1e6, 3),
        "most_ms": round(measured.max() / 1e6, 3),
        "mean_error": round(float(errors.mean()), 4),
        "median_absolute_error": round(float(np.median(np.abs(errors))), 4),
        "p95_absolute_error": round(float(np.percentile(np.abs(errors), 95)), 4),
        "within_10_percent": round(float((np.abs(errors) <= 0.1).mean()), 3),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--networks", type=int, default=30)
    given = parser.parse_args()
    timed_on = TimedOnConfig(
        device=given.device,
        threads=given.threads,
        batch_size=given.batch,
        precision=given.precision,
    )
    print(json.dumps(predicted(given.model, timed_on, given.networks)))

"""The row of a trial that was stopped at a rung, whoever decided it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ofbnas.config import StudyConfig
from ofbnas.study.trial import write_pruned
from ofbnas.study.tuning.rungs import Reached
from ofbnas.table.columns import KNOWN_AT_RUNGS


def write_stopped(
    config: StudyConfig,
    params: Mapping[str, Any],
    folder: Path,
    report: Reached,
    *,
    seconds: float,
    gpus: float,
    parent: Mapping[str, float],
    at_rung: int | None = None,
    seed: int | None = None,
) -> None:
    """Write the row of a trial that is stopped at a rung.

    Args:
        config: The study.
        params: The trial's swept values.
        folder: The study's.
        report: What the trial reported at the rung.
        seconds: How long it ran.
        gpus: GPUs that it held.
        parent: "gmacs" and "params" of the parent.
        at_rung: Number of trials that had reached the rung, this one included, if it is known.
        seed: The trial's; by default the study's plus its number.
    """
    objectives = {objective.metric for objective in config.objectives}
    metrics = ", ".join(
        f"{name} {report.values[name]:.4g}" for name in KNOWN_AT_RUNGS if name in objectives
    )
    after = f"stopped after epoch {report.epoch}"
    if at_rung is not None:
        after += f", which {at_rung} trials had reached"
    known = {
        "val_top1": report.values["val_top1"],
        "search_epochs": report.epoch,
        "seconds": seconds,
        "gpu_hours": gpus * seconds / 3600,
    }
    for name, value in parent.items():
        known[f"parent_{name}"] = value
    reason = f"{after}, with {metrics}" if metrics else after
    write_pruned(config, params, report.trial, folder, reason, known, seed)

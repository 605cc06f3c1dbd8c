"""The values of a sweep's fields: drawn for a trial, and all points of a grid."""

from __future__ import annotations

import itertools
import random
from typing import Any

from optuna.trial import BaseTrial

from ofbnas.config import ChoiceParam, IntParam, SweepConfig


def grid_points(sweep: SweepConfig, seed: int) -> list[dict[str, Any]]:
    """All points of a grid in an order of chance; none for another sampler."""
    if sweep.sampler != "grid":
        return []
    values = [param.grid() or [] for param in sweep.params.values()]
    points = [dict(zip(sweep.params, point, strict=True)) for point in itertools.product(*values)]
    random.Random(seed).shuffle(points)
    return points


_NOTHING = object()


def draw(trial: BaseTrial, sweep: SweepConfig) -> dict[str, Any]:
    """A trial's values for the swept fields but those whose condition fails; what it has already stays."""
    values: dict[str, Any] = {}
    for name, param in sweep.params.items():
        if any(values.get(other, _NOTHING) != value for other, value in param.when.items()):
            continue
        if isinstance(param, ChoiceParam):
            values[name] = trial.suggest_categorical(name, param.choices)
        elif isinstance(param, IntParam):
            values[name] = trial.suggest_int(name, param.low, param.high, log=param.log, step=param.step)
        else:
            values[name] = trial.suggest_float(name, param.low, param.high, log=param.log, step=param.step)
    return values

"""The values of a sweep's fields: suggested for a trial, and all points of a grid."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from typing import Any

from optuna.trial import BaseTrial

from ofbnas.config import ChoiceParam, IntParam, SweepConfig
from ofbnas.config.ranges import Param

_NOTHING = object()  # equal to no value of a swept field


def grid_points(sweep: SweepConfig, seed: int) -> list[dict[str, Any]]:
    """All points of a grid in random order; empty for another sampler."""
    if sweep.sampler != "grid":
        return []
    values = [param.values() for param in sweep.params.values()]
    points = []
    for combination in itertools.product(*values):
        points.append(dict(zip(sweep.params, combination, strict=True)))
    random.Random(seed).shuffle(points)
    return points


def _is_met(param: Param, values: Mapping[str, Any]) -> bool:
    """Whether a field is swept beside these values of the fields before it."""
    # A field that was left out itself meets no condition.
    return all(values.get(other, _NOTHING) == value for other, value in param.when.items())


def without_unmet(values: Mapping[str, Any], sweep: SweepConfig) -> dict[str, Any]:
    """Values without those of fields whose conditions are not met, for tuners without conditions."""
    kept = dict(values)
    for name, param in sweep.params.items():
        if name in kept and not _is_met(param, kept):
            del kept[name]
    return kept


def draw(trial: BaseTrial, sweep: SweepConfig) -> dict[str, Any]:
    """A trial's values of the swept fields whose conditions are met.

    Values that the trial already has are kept.
    """
    values: dict[str, Any] = {}
    for name, param in sweep.params.items():
        if not _is_met(param, values):
            continue
        if isinstance(param, ChoiceParam):
            values[name] = trial.suggest_categorical(name, param.choices)
        elif isinstance(param, IntParam):
            values[name] = trial.suggest_int(
                name,
                param.low,
                param.high,
                log=param.log,
                step=param.step,
            )
        else:
            values[name] = trial.suggest_float(
                name,
                param.low,
                param.high,
                log=param.log,
                step=param.step,
            )
    return values

"""Optuna's samplers, and which options they take."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import optuna

from ofbnas.config import SweepConfig
from ofbnas.errors import InputError

MAX_WHOLE = 1_000_000  # largest whole number of an option; no study has as many candidates
MAX_SHOWN = 80  # characters of a name or a value in an error message

# Annotations of the arguments of Optuna's samplers, and the YAML types that each stands for.
# Arguments with other annotations, such as functions, cannot be given as options.
_TYPES: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool | None": (bool,),
    "int | None": (int,),
    "float | None": (int, float),
}

_KINDS: dict[str, type[optuna.samplers.BaseSampler]] = {
    "tpe": optuna.samplers.TPESampler,
    "nsga2": optuna.samplers.NSGAIISampler,
    "nsga3": optuna.samplers.NSGAIIISampler,
    "gp": optuna.samplers.GPSampler,
    "qmc": optuna.samplers.QMCSampler,
    "random": optuna.samplers.RandomSampler,
    "grid": optuna.samplers.RandomSampler,  # its points are enqueued when the study is made
}


def sampler_of(sweep: SweepConfig, seed: int) -> optuna.samplers.BaseSampler:
    """Optuna's sampler of a sweep.

    Raises:
        InputError: It does not take one of the options.
    """
    kind = _KINDS[sweep.sampler]
    where = f"sweep.sampler_options of {sweep.sampler}"
    _check(sweep.sampler_options, kind, where)

    # Random trials before a model is fitted: half of a small study, at most Optuna's own 10.
    startup = min(10, max(1, sweep.n_trials // 2))
    defaults: dict[str, dict[str, Any]] = {
        "tpe": {"multivariate": True, "n_startup_trials": startup},
        "gp": {"n_startup_trials": startup},
        "qmc": {"scramble": True},
    }
    arguments = {
        **defaults.get(sweep.sampler, {}),
        "seed": seed,
        **sweep.sampler_options,
    }
    try:
        return kind(**arguments)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: {error}") from None


def _check(
    options: Mapping[str, Any],
    kind: type[optuna.samplers.BaseSampler],
    where: str,
) -> None:
    """Check options against a sampler's signature: some samplers fail only when they sample.

    Raises:
        InputError: An option is not in the signature, or has another type.
    """
    annotations = {}
    for parameter in inspect.signature(kind).parameters.values():
        annotation = inspect.formatannotation(parameter.annotation).strip("'")
        if annotation in _TYPES:
            annotations[parameter.name] = annotation

    for name, value in options.items():
        if name not in annotations:
            takes = ", ".join(annotations) or "none"
            raise InputError(
                f"{where}: {name[:MAX_SHOWN]} is unknown or no plain value; it takes {takes}"
            )
        # Not isinstance: a bool is an int to Python, but not to a reader of YAML.
        annotation = annotations[name]
        if type(value) not in _TYPES[annotation]:
            expected = annotation.partition(" ")[0]
            given = str(value)[:MAX_SHOWN]
            raise InputError(f"{where}: {name} is {given}, expected {expected}")
        if isinstance(value, int) and not 0 <= value <= MAX_WHOLE:
            raise InputError(f"{where}: {name} is {value}, expected 0 to {MAX_WHOLE:,}")

"""ofbnas inside your own Optuna study: values of a sweep, and trials as an objective.

objective = ofbnas.optuna.objective("digits", "runs/mine")
study = optuna.create_study(directions=objective.directions)
study.optimize(objective, n_trials=8)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import BaseTrial
from pydantic import ValidationError

from ofbnas.config import StudyConfig, SweepConfig
from ofbnas.config.fields import first_error
from ofbnas.config.study_file import as_study
from ofbnas.errors import InputError
from ofbnas.study.tuning.points import draw

if TYPE_CHECKING:
    from ofbnas.study.own_optuna import Objective
    from ofbnas.training.events import Callback

__all__ = ["objective", "suggest"]


def suggest(
    trial: BaseTrial, study: StudyConfig | Path | str | Mapping[str, Any]
) -> dict[str, Any]:
    """A trial's values of the swept fields, as a study of ours would draw them.

    Args:
        trial: Of your study; or a `FixedTrial`.
        study: A study, the path or name of its YAML file, or what stands below its `sweep.params`:
            {"search.lr": {"low": 1.0e-4, "high": 1.0e-2, "log": True}}.

    Returns:
        Dotted name of a field to its value, for `StudyConfig.with_values`. A field whose condition
        `when` is not met is left out.

    Raises:
        InputError: There is no such study, or something in it is not allowed.
    """
    if not isinstance(study, Mapping):
        return draw(trial, as_study(study).sweep)
    tree = {"n_trials": 1, "params": dict(study)}
    try:
        return draw(trial, SweepConfig.model_validate(tree))
    except ValidationError as error:
        raise InputError(first_error(error, tree, SweepConfig).message) from None


def objective(
    study: StudyConfig | Path | str,
    folder: Path | str,
    *,
    rungs: Collection[int] = (),
    device: str | None = None,
    callbacks: Sequence[Callback] = (),
) -> Objective:
    """A study's trials as an objective for `optuna.Study.optimize`, on your storage and sampler.

    The parent is trained or loaded here, once. Each trial writes its subnet, its history and its
    row into the folder, as `ofbnas study run` does. Its number is that of your Optuna study, which
    has the folder to itself. An exception becomes the reason of a row with the status "failed", and
    is raised: `optimize(..., catch=Exception)` goes on to the next trial. Values of
    `sweep.constraints` are set with `trial.set_constraint`. Trials run one at a time in a process;
    several processes may share a storage and the folder.

    From the study, n_trials, sampler, start, storage and resources are not used: they are yours.

    Args:
        study: A study, or the path or name of its YAML file.
        folder: For the table and the networks; created if necessary.
        rungs: Of one objective: epochs of the search, from 1, at which its value is reported to
            Optuna and your pruner may stop the trial. With several objectives, for which Optuna has
            no pruning, trials are stopped by the study's `sweep.early_stopping`, if it is front.
        device: Where trials run; by default CUDA if there is any.
        callbacks: Receive what happens in trials.

    Returns:
        The objective. Its `directions` are for `optuna.create_study`, and `resume(study)` enqueues
        trials that were interrupted.

    Raises:
        InputError: There is no such study, it cannot run in one process, or the folder holds one
            whose settings may not change like this.
    """
    from ofbnas.study.own_optuna import Objective  # imports torch

    return Objective(as_study(study), Path(folder), rungs, device, callbacks)

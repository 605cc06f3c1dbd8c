"""What Optuna's storage tells of a study: trials that have begun, and which swept fields matter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from ofbnas.config import StudyConfig
from ofbnas.config.storage import file_of
from ofbnas.ledger.record import find_study
from ofbnas.ledger.storage import readable, storage_of

MIN_TRIALS = 8  # complete ones; importances from fewer say nothing


def read_journal(config: StudyConfig, folder: Path) -> dict[str, Any]:
    """What Optuna's storage holds of a study, as plain values; no trial is touched.

    Args:
        config: The study.
        folder: Its folder; a study that has only just begun is in no storage yet.

    Returns:
        begun: Number and swept values ("trial", "params") of each trial that Optuna has as running.
        importance: As `importance` gives it.
    """
    study = _study(config, folder)
    running = [] if study is None else study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return {
        "begun": [{"trial": trial.number, "params": dict(trial.params)} for trial in running],
        "importance": importance(study, config),
    }


def importance(study: optuna.Study | None, config: StudyConfig) -> dict[str, Any]:
    """How much of the first objective's variance each swept field explains, by Optuna's fANOVA.

    Args:
        study: Optuna's; None where there is none yet.
        config: The study.

    Returns:
        objective: The first objective's metric.
        trials: Complete trials.
        shares: Field to share; they sum to 1. Empty where nothing can be said.
        why_not: Why there are none, or None.
    """
    metric = config.objectives[0].metric
    trials = [] if study is None else study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    found: dict[str, Any] = {"objective": metric, "trials": len(trials), "shares": {}, "why_not": None}
    if not config.sweep.params:
        return found | {"why_not": "This study sweeps nothing, so there is nothing to compare."}
    if study is None or len(trials) < MIN_TRIALS:
        return found | {
            "why_not": f"Too few complete trials to say what matters: {len(trials)}; it takes at least {MIN_TRIALS}."
        }
    if len({_value(trial) for trial in trials}) == 1:
        return found | {"why_not": f"All {len(trials)} complete trials have the same {metric}."}
    shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0), target=_value)
    return found | {"shares": {name: float(share) for name, share in shares.items()}}


def _study(config: StudyConfig, folder: Path) -> optuna.Study | None:
    """Optuna's study in a folder, if it has one."""
    file = file_of(config.sweep.storage, folder)
    if file is not None and not file.is_file():  # opening a storage would make the file
        return None
    with readable(config):
        return find_study(config, folder, storage_of(config, folder))


def _value(trial: FrozenTrial) -> float:
    """A complete trial's value of the first objective."""
    return float(trial.values[0])

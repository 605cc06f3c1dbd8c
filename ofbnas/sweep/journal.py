"""What Optuna's journal tells of a study: trials that have begun, and which swept fields matter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from ofbnas.config import StudyConfig

MIN_TRIALS = 8  # complete ones; importances from fewer say nothing


def storage_of(folder: Path) -> JournalStorage:
    """The Optuna storage of a study's folder."""
    return JournalStorage(JournalFileBackend(str(folder / "journal.log")))


def mend(folder: Path) -> None:
    """Take away a last record that was written in part, as on a full disk; the next one would be added to it."""
    file = folder / "journal.log"
    if file.is_file() and not (records := file.read_bytes()).endswith(b"\n"):
        with file.open("r+b") as journal:
            journal.truncate(records.rfind(b"\n") + 1)


def read_journal(config: StudyConfig, folder: Path) -> dict[str, Any]:
    """What a study's journal holds, as plain values; nothing is written.

    Args:
        config: The study.
        folder: Its folder; a study that has only just begun has no journal yet.

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
    if not (folder / "journal.log").is_file():  # opening a storage would make the file
        return None
    storage = storage_of(folder)
    known = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=config.name, storage=storage) if config.name in known else None


def _value(trial: FrozenTrial) -> float:
    """A complete trial's value of the first objective."""
    return float(trial.values[0])

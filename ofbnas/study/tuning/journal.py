"""What Optuna's storage holds of a study: running trials, and the importances of swept fields.

The folder may be a stranger's: unless asked to, this opens nothing but a journal in it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import OptunaError
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from ofbnas.config import StudyConfig
from ofbnas.config.storage import JOURNAL, file_of, shown
from ofbnas.errors import InputError, one_line
from ofbnas.files.untrusted import check_regular, inside
from ofbnas.study.tuning.optuna_private import CREATE_STUDY, CREATE_TRIAL, OPERATION, TRIAL_ID
from ofbnas.study.tuning.record import find_study
from ofbnas.study.tuning.storage import INVALID_RECORD, readable, storage_of

EVALUATOR = "fANOVA"
MIN_TRIALS = 8  # complete trials; importances from fewer mean nothing

# Limits of a journal that nobody has vouched for. Optuna's replay compares each new trial with
# those before it, and copies a trial for each record of it, so a few megabytes could keep it busy
# for hours.
MAX_BYTES = 64 * 2**20
MAX_TRIALS = 10_000
MAX_RECORDS_OF_A_TRIAL = 1_000

WITHOUT_STUDY = (
    "This table has no study.yaml, so objectives, ranges of swept fields and hyper-parameter "
    "importances are left out."
)
LEFT_OUT = (
    "Optuna's study is kept in sweep.storage, outside of this folder, which was not opened: "
    "running trials and hyper-parameter importances are left out; "
    "ofbnas study report --connect reads it."
)


def read_journal(
    config: StudyConfig,
    folder: Path,
    *,
    connect: bool = False,
) -> dict[str, Any]:
    """What Optuna's storage holds of a study, as plain values; no trial is touched.

    Args:
        config: The study.
        folder: Its folder; a study that has only just begun is in no storage yet.
        connect: Whether a storage outside of the folder may be opened, and a journal of any size
            read.

    Returns:
        running: Number and swept values ("trial", "params") of each trial that Optuna has as
            running.
        importance: As `importance` gives it.
        left_out: What is missing here because the storage was not opened, or None.

    Raises:
        InputError: The storage cannot be opened, or is not Optuna's.
    """
    if config.sweep.storage is not None and not connect:
        importances = _no_importance(0, LEFT_OUT)
        return {"running": [], "importance": importances, "left_out": LEFT_OUT}

    try:
        study = _study(config, folder, connect)
        running = [
            {"trial": trial.number, "params": dict(trial.params)}
            for trial in _trials(study, TrialState.RUNNING)
        ]
        importances = importance(study, config)
    except InputError:
        raise
    except (OptunaError, *INVALID_RECORD) as error:
        storage = shown(config.sweep.storage or str(folder / JOURNAL))
        reason = one_line(error)
        raise InputError(f"{storage}: has records that Optuna did not write ({reason})") from None
    return {"running": running, "importance": importances, "left_out": None}


def no_journal() -> dict[str, Any]:
    """What `read_journal` would give of a table without a study."""
    importances = _no_importance(0, WITHOUT_STUDY)
    return {"running": [], "importance": importances, "left_out": WITHOUT_STUDY}


def importance(study: optuna.Study | None, config: StudyConfig) -> dict[str, Any]:
    """How much of each objective's variance each swept field explains, by Optuna's fANOVA.

    Args:
        study: Optuna's; None where there is none yet.
        config: The study.

    Returns:
        evaluator: Name of Optuna's evaluator.
        trials: Number of complete trials.
        objectives: For each objective its metric ("metric"), and field to share ("shares"), which
            sum to 1; they are empty where nothing can be said, for a reason ("why_not").
        why_not: Why nothing can be said about any objective, or None.
    """
    trials = _trials(study, TrialState.COMPLETE)
    count = len(trials)
    if not config.sweep.params:
        return _no_importance(count, "This study sweeps nothing, so there is nothing to compare.")
    if study is None or count < MIN_TRIALS:
        return _no_importance(
            count,
            f"Too few complete trials for importances: {count}; expected at least {MIN_TRIALS}.",
        )
    objectives = []
    for index, objective in enumerate(config.objectives):
        objectives.append(_importance_for(study, trials, objective.metric, index))
    return {"evaluator": EVALUATOR, "trials": count, "objectives": objectives, "why_not": None}


def _importance_for(
    study: optuna.Study, trials: Sequence[FrozenTrial], metric: str, index: int
) -> dict[str, Any]:
    """The entry of one objective in the result of `importance`."""

    def value(trial: FrozenTrial) -> float:
        return float(trial.values[index])

    if len(set(map(value, trials))) == 1:
        why_not = f"All {len(trials)} complete trials have the same {metric}."
        return {"metric": metric, "shares": {}, "why_not": why_not}
    # With a seed, reports of the same journal are equal.
    evaluator = FanovaImportanceEvaluator(seed=0)
    importances = get_param_importances(study, evaluator=evaluator, target=value)
    shares = {name: float(share) for name, share in importances.items()}
    return {"metric": metric, "shares": shares, "why_not": None}


def _no_importance(trials: int, why_not: str) -> dict[str, Any]:
    """The result of `importance` where nothing can be said."""
    return {"evaluator": EVALUATOR, "trials": trials, "objectives": [], "why_not": why_not}


def _trials(study: optuna.Study | None, state: TrialState) -> list[FrozenTrial]:
    """A study's trials in a state."""
    if study is None:
        return []
    return study.get_trials(deepcopy=False, states=(state,))


def _study(config: StudyConfig, folder: Path, connect: bool) -> optuna.Study | None:
    """Optuna's study in a folder, if it has one.

    Raises:
        InputError: The journal is a link, not a file, or too large.
    """
    file = file_of(config.sweep.storage, folder)
    if file is not None and not file.exists():  # opening a storage would create the file
        return None
    if file is not None:
        check_regular(file)
    if config.sweep.storage is None:
        inside(folder, JOURNAL, folder)  # refuses a link
    if file is not None and not connect:
        _check_size(file)
    with readable(config):
        return find_study(config, folder, storage_of(config, folder))


def _check_size(journal: Path) -> None:
    """Check that a journal can be replayed in reasonable time.

    Raises:
        InputError: It is larger than that of any study, has more trials, or more records of one.
    """
    remedy = "give --connect to read it all the same"
    size = journal.stat().st_size
    if size > MAX_BYTES:
        raise InputError(f"{journal}: has {size:,} bytes, expected at most {MAX_BYTES:,}; {remedy}")

    created, most_records = _count_records(journal)
    if created > MAX_TRIALS:
        raise InputError(
            f"{journal}: has {created:,} trials, expected at most {MAX_TRIALS:,}; {remedy}"
        )
    if most_records > MAX_RECORDS_OF_A_TRIAL:
        raise InputError(
            f"{journal}: has {most_records:,} records of one trial, expected at most "
            f"{MAX_RECORDS_OF_A_TRIAL:,}; {remedy}"
        )


def _count_records(journal: Path) -> tuple[int, int]:
    """The studies and trials that a journal creates, and the most records of one trial."""
    created = 0
    records_of = Counter[int]()
    with journal.open("rb") as lines:
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                # The last record may be half written; if another is damaged, Optuna reports it.
                continue
            if record[OPERATION] in (CREATE_STUDY, CREATE_TRIAL):
                created += 1
            if TRIAL_ID in record:
                records_of[record[TRIAL_ID]] += 1
    return created, max(records_of.values(), default=0)

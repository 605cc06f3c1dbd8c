"""What trials report at rungs, kept in Optuna's study, in which it outlives every process.

It is there before anything is decided, so a study that was killed still knows its rungs, and a trial
that reaches a rung again is counted once.
"""

from __future__ import annotations

import optuna

from ofbnas.study.tuning import optuna_private
from ofbnas.study.tuning.rungs import Reached

RUNGS = "rungs"  # user attribute of a trial: the metrics it reported at each rung, by epoch


def reached(study: optuna.Study) -> list[Reached]:
    """What trials have reported at rungs, by trial and epoch."""
    result = []
    for trial in study.get_trials(deepcopy=False):
        rungs = trial.user_attrs.get(RUNGS, {})
        for epoch, values in rungs.items():
            result.append(Reached(trial.number, int(epoch), values))
    return result


def before(study: optuna.Study, report: Reached) -> list[Reached]:
    """What a report is compared with: those of others, and the trial's own at earlier rungs."""
    return [
        other
        for other in reached(study)
        # A lost trial that runs again is not compared with its own first run.
        if other.trial != report.trial or other.epoch < report.epoch
    ]


def remember(study: optuna.Study, report: Reached) -> None:
    """Record what a running trial reports at a rung.

    It replaces an earlier report at the same rung, made by a process that was lost.
    """
    trial = study.get_trials(deepcopy=False)[report.trial]
    rungs = dict(trial.user_attrs.get(RUNGS, {}))
    rungs[str(report.epoch)] = dict(report.values)
    optuna_private.set_user_attribute(study, trial, RUNGS, rungs)

"""Early stopping: a scheduler for Ray Tune that asks a rule at each rung.

It has no state of its own. What a trial reports at a rung is in Optuna's storage before anything is
decided, so a study that was killed still knows its rungs, and a trial that reaches a rung again is
counted once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ofbnas.config import StudyConfig
from ofbnas.config.sweep import FrontStopping, MedianStopping, Objective
from ofbnas.study.cluster.sampling import StudySearch
from ofbnas.study.cluster.tune_import import ASHAScheduler, FIFOScheduler, MedianStoppingRule
from ofbnas.study.trial import write_pruned
from ofbnas.study.tuning.rungs import Reached, is_promoted
from ofbnas.table.columns import KNOWN_AT_RUNGS

# Whether a trial continues, given what trials reported at rungs before and what it reports now.
Rule = Callable[[Sequence[Reached], Reached], bool]


class RungScheduler(FIFOScheduler):  # type: ignore[misc]  # ray has no types
    """First come, first served; at each rung a rule decides whether the trial is pruned."""

    def __init__(
        self,
        config: StudyConfig,
        search: StudySearch,
        parent: Mapping[str, float],
    ) -> None:
        """Set up the rule of a study.

        Args:
            config: The study, with early stopping.
            search: Records what trials report at rungs.
            parent: "gmacs" and "params" of the parent.
        """
        super().__init__()
        self.config = config
        self.search = search
        self.parent = parent
        self.rule = rule_of(config, parent)

    def on_trial_result(
        self,
        tune_controller: Any,
        trial: Any,
        result: Mapping[str, Any],
    ) -> str:
        """At a rung, record the report and decide; a trial that is stopped gets its row here.

        Optuna learns from that row that the trial was pruned.
        """
        if result["phase"] != "rung":
            return str(self.CONTINUE)

        values = {name: result[name] for name in KNOWN_AT_RUNGS}
        report = Reached(trial.config["trial"], result["epoch"], values)
        earlier = [
            other
            for other in self.search.reached()
            # A lost trial that runs again is not compared with its own first run.
            if other.trial != report.trial or other.epoch < report.epoch
        ]
        self.search.remember(report)
        if self.rule(earlier, report):
            return str(self.CONTINUE)

        same_rung = [other for other in earlier if other.epoch == report.epoch]
        at_rung = len(same_rung) + 1
        self._write_row(trial.config["params"], report, at_rung, result["seconds"])
        return str(self.STOP)

    def _write_row(
        self,
        params: Mapping[str, Any],
        report: Reached,
        at_rung: int,
        seconds: float,
    ) -> None:
        """Write the row of a trial that is stopped.

        Args:
            params: The trial's swept values.
            report: What it reported at the rung.
            at_rung: Number of trials that had reached the rung, this one included.
            seconds: How long it ran.
        """
        metrics = ", ".join(
            f"{name} {report.values[name]:.4g}"
            for name in KNOWN_AT_RUNGS
            if name in self.search.metric
        )
        known = {
            "val_top1": report.values["val_top1"],
            "search_epochs": report.epoch,
            "seconds": seconds,
            "gpu_hours": self.config.resources.gpus_per_trial * seconds / 3600,
        }
        for name, value in self.parent.items():
            known[f"parent_{name}"] = value
        rung = f"epoch {report.epoch}, which {at_rung} trials had reached"
        write_pruned(
            self.config,
            params,
            report.trial,
            self.search.folder,
            reason=f"stopped after {rung}, with {metrics}",
            known=known,
        )


def rule_of(config: StudyConfig, parent: Mapping[str, float]) -> Rule:
    """The rule that decides at a rung whether a trial continues.

    Args:
        config: The study, with early stopping.
        parent: "gmacs" and "params" of the parent; with an accuracy of 0 they are the reference
            point of hypervolumes.

    Raises:
        ValueError: The study has no early stopping.
    """
    stopping = config.sweep.early_stopping
    if stopping is None:
        raise ValueError("this study has no early stopping")
    if isinstance(stopping, FrontStopping):
        largest = {"val_top1": 100.0, **parent}
        return partial(_by_front, stopping, config.objectives, largest)

    modes = {objective.metric: objective.mode for objective in config.objectives}
    common = {
        "time_attr": "epoch",
        "metric": stopping.metric,
        "mode": modes[stopping.metric],
        "grace_period": config.first_rung(),
    }
    if isinstance(stopping, MedianStopping):
        # An infinite time slice: no trial is paused to wait for others.
        return partial(_by_ray, lambda last: MedianStoppingRule(min_time_slice=math.inf, **common))
    halving = {"reduction_factor": stopping.eta, "stop_last_trials": False}
    # ASHA counts its rungs by a logarithm of `max_t`, rounded down; with `max_t` just at the last
    # rung, a rounding error could lose that rung.
    return partial(_by_ray, lambda last: ASHAScheduler(max_t=last + 1, **halving, **common))


def _by_front(
    stopping: FrontStopping,
    objectives: Sequence[Objective],
    largest: Mapping[str, float],
    earlier: Sequence[Reached],
    report: Reached,
) -> bool:
    """Our own rule: successive halving by fronts.

    Args:
        stopping: Its settings.
        objectives: The study's.
        largest: Largest value of each metric; the smallest is 0.
        earlier: What trials reported at rungs before.
        report: What this trial reports.
    """
    rung = [other.values for other in earlier if other.epoch == report.epoch]
    rung.append(report.values)
    points = [[values[objective.metric] for objective in objectives] for values in rung]
    maximise = [objective.mode == "max" for objective in objectives]
    worst = [
        0.0 if objective.mode == "max" else largest[objective.metric] for objective in objectives
    ]
    return is_promoted(
        np.array(points),
        len(rung) - 1,
        maximise=maximise,
        ref=worst,
        eta=stopping.eta,
        ties=stopping.ties,
    )


@dataclass(frozen=True)
class _Trial:
    """The only attribute of a trial that Ray's schedulers read."""

    trial_id: int


def _by_ray(scheduler: Callable[[int], Any], earlier: Sequence[Reached], report: Reached) -> bool:
    """A rule of Ray's.

    Ray's schedulers keep their state in memory only, so each decision makes a new one and replays
    the earlier reports to it.

    Args:
        scheduler: Makes the scheduler, for rungs up to an epoch.
        earlier: What trials reported at rungs before.
        report: What this trial reports.
    """
    last = max(other.epoch for other in [*earlier, report])
    rule = scheduler(last)
    for other in earlier:
        rule.on_trial_add(None, _Trial(other.trial))
        result = {"epoch": other.epoch, **other.values}
        rule.on_trial_complete(None, _Trial(other.trial), result)

    rule.on_trial_add(None, _Trial(report.trial))
    result = {"epoch": report.epoch, **report.values}
    decision = rule.on_trial_result(None, _Trial(report.trial), result)
    return bool(decision == rule.CONTINUE)

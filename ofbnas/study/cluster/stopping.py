"""Early stopping: a scheduler for Ray Tune that asks a rule at each rung.

It has no state of its own: what trials reported is in Optuna's storage.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ofbnas.config import StudyConfig
from ofbnas.config.sweep import FrontStopping, MedianStopping
from ofbnas.study.cluster.sampling import StudySearch
from ofbnas.study.cluster.tune_import import ASHAScheduler, FIFOScheduler, MedianStoppingRule
from ofbnas.study.stopped import write_stopped
from ofbnas.study.tuning.reports import before, remember
from ofbnas.study.tuning.rungs import Reached, by_front
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
        earlier = before(self.search.study, report)
        remember(self.search.study, report)
        if self.rule(earlier, report):
            return str(self.CONTINUE)

        write_stopped(
            self.config,
            trial.config["params"],
            self.search.folder,
            report,
            seconds=result["seconds"],
            gpus=self.config.resources.gpus_per_trial,
            parent=self.parent,
            at_rung=sum(other.epoch == report.epoch for other in earlier) + 1,
        )
        return str(self.STOP)


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
        return partial(by_front, stopping, config.objectives, largest)

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

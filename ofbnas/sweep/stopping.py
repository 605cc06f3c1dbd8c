"""Early stopping: a scheduler for Ray Tune that asks a rule at each rung.

It has no state. What a trial tells at a rung is in the journal before anything is decided, so a study that was killed
knows its rungs, and a trial that reaches one again is counted once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ofbnas.config import StudyConfig
from ofbnas.config.sweep import KNOWN_AT_RUNGS, FrontStopping, MedianStopping, Objective
from ofbnas.sweep.ray_quietly import ASHAScheduler, FIFOScheduler, MedianStoppingRule
from ofbnas.sweep.rungs import Reached, goes_on
from ofbnas.sweep.sampling import StudySearch
from ofbnas.trial import write_pruned

Rule = Callable[[Sequence[Reached], Reached], bool]


class RungScheduler(FIFOScheduler):  # type: ignore[misc]  # ray has no types
    """First come, first served, and at a rung a trial is stopped if the rule does not let it go on."""

    def __init__(self, config: StudyConfig, search: StudySearch, parent: Mapping[str, float]) -> None:
        """Take a study's rule.

        Args:
            config: The study, with early stopping.
            search: What keeps its journal.
            parent: "gmacs" and "params" of the parent.
        """
        super().__init__()
        self.config, self.search, self.parent = config, search, parent
        self.rule = rule_of(config, parent)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> str:
        """At a rung: keep what the trial tells, ask, and write its row if it is to stop, from which Optuna is told."""
        if result["phase"] != "rung":
            return str(self.CONTINUE)
        asked = Reached(trial.config["trial"], result["epoch"], {name: result[name] for name in KNOWN_AT_RUNGS})
        reached = [one for one in self.search.reached() if one.trial != asked.trial or one.epoch < asked.epoch]
        self.search.remember(asked)
        if self.rule(reached, asked):
            return str(self.CONTINUE)
        there = 1 + sum(one.epoch == asked.epoch for one in reached)
        told = ", ".join(f"{name} {asked.values[name]:.4g}" for name in KNOWN_AT_RUNGS if name in self.search.metric)
        write_pruned(
            self.config,
            trial.config["params"],
            asked.trial,
            self.search.folder,
            reason=f"stopped after epoch {asked.epoch}, which {there} trials had reached, with {told}",
            known={
                "val_top1": asked.values["val_top1"],
                "search_epochs": asked.epoch,
                "seconds": result["seconds"],
                "gpu_hours": self.config.resources.gpus_per_trial * result["seconds"] / 3600,
                **{f"parent_{name}": value for name, value in self.parent.items()},
            },
        )
        return str(self.STOP)


def rule_of(config: StudyConfig, parent: Mapping[str, float]) -> Rule:
    """Whether a trial goes on, as a function of what others have told at their rungs and of what it tells at this one.

    Args:
        config: The study, with early stopping.
        parent: "gmacs" and "params" of the parent; with an accuracy of 0 they are the reference point of hypervolumes.
    """
    stopping = config.sweep.early_stopping
    if isinstance(stopping, FrontStopping):
        return partial(_by_front, stopping, config.objectives, {"val_top1": 100.0, **parent})
    if stopping is None:
        raise ValueError("this study stops nothing early")
    mode = next(objective.mode for objective in config.objectives if objective.metric == stopping.metric)
    judged = {"time_attr": "epoch", "metric": stopping.metric, "mode": mode, "grace_period": config.first_rung()}
    if isinstance(stopping, MedianStopping):
        return partial(_by_ray, lambda last: MedianStoppingRule(min_time_slice=math.inf, **judged))  # nobody waits
    halving = {"reduction_factor": stopping.eta, "stop_last_trials": False}
    return partial(_by_ray, lambda last: ASHAScheduler(max_t=last + 1, **halving, **judged))


def _by_front(
    stopping: FrontStopping,
    objectives: Sequence[Objective],
    most: Mapping[str, float],
    reached: Sequence[Reached],
    asked: Reached,
) -> bool:
    """Our own rule; `most` is what a metric is at most, and its least is 0."""
    rung = [one.values for one in reached if one.epoch == asked.epoch] + [asked.values]
    maximise = [objective.mode == "max" for objective in objectives]
    return goes_on(
        np.array([[values[objective.metric] for objective in objectives] for values in rung]),
        len(rung) - 1,
        maximise=maximise,
        ref=[0.0 if objective.mode == "max" else most[objective.metric] for objective in objectives],
        eta=stopping.eta,
        ties=stopping.ties,
    )


@dataclass(frozen=True)
class _Trial:
    """What Ray's rules want to know of a trial."""

    trial_id: int


def _by_ray(scheduler: Callable[[int], Any], reached: Sequence[Reached], asked: Reached) -> bool:
    """A rule of Ray's: a new scheduler, made for rungs up to some epoch, that is told of all the others first."""
    rule = scheduler(max(one.epoch for one in [*reached, asked]))
    for one in reached:
        rule.on_trial_add(None, _Trial(one.trial))
        rule.on_trial_complete(None, _Trial(one.trial), {"epoch": one.epoch, **one.values})
    rule.on_trial_add(None, _Trial(asked.trial))
    told = {"epoch": asked.epoch, **asked.values}
    return bool(rule.on_trial_result(None, _Trial(asked.trial), told) == rule.CONTINUE)

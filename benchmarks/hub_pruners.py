"""What decides at rungs in the replay of `early_stopping.py`: our rules, and pruners of OptunaHub."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import optuna
import optunahub

from ofbnas.config.sweep import Objective
from ofbnas.study.cluster.stopping import Rule
from ofbnas.study.tuning.rungs import Reached

OURS = Path(__file__).parent.parent / "optunahub" / "package"
Ask = Callable[[optuna.Trial, Mapping[str, float], int], bool]  # whether a trial is to be pruned


class Judge(Protocol):
    """Decides at rungs."""

    def promotes(self, earlier: Sequence[Reached], report: Reached) -> bool:
        """Whether a trial continues, given what was reported before and what it reports now."""

    def ended(self, trial: int, values: Mapping[str, float]) -> None:
        """A trial has run to the end, with these results."""


class OwnJudge:
    """Asks the rule that a study of ours asks; without a rule every trial continues."""

    def __init__(self, rule: Rule | None) -> None:
        self.rule = rule

    def promotes(self, earlier: Sequence[Reached], report: Reached) -> bool:
        """Ask the rule."""
        return self.rule is None or self.rule(earlier, report)

    def ended(self, trial: int, values: Mapping[str, float]) -> None:
        """Nothing: a rule looks at rungs alone."""


class HubJudge:
    """A pruner in an Optuna study of its own, whose trials have the numbers of the replay's."""

    def __init__(self, pruner: Any, ask: Ask, trials: int, objectives: Sequence[Objective]) -> None:
        self.names = [objective.metric for objective in objectives]
        directions = [objective.direction for objective in objectives]
        self.study = optuna.create_study(directions=directions, pruner=pruner)
        self.trials = [self.study.ask() for _ in range(trials)]
        self.ask = ask

    def promotes(self, earlier: Sequence[Reached], report: Reached) -> bool:
        """Report a trial's values at a rung; Optuna's study knows the earlier ones."""
        values = {name: report.values[name] for name in self.names}
        if not self.ask(self.trials[report.trial], values, report.epoch):
            return True
        self.study.tell(report.trial, state=optuna.trial.TrialState.PRUNED)
        return False

    def ended(self, trial: int, values: Mapping[str, float]) -> None:
        """Tell Optuna the results of a trial that ran to the end."""
        self.study.tell(trial, [values[name] for name in self.names])


def pareto_front(
    first_rung: int, reference: Sequence[float] | None, trials: int, objectives: Sequence[Objective]
) -> HubJudge:
    """The package of this repository.

    Args:
        first_rung: Epoch of the first rung.
        reference: The reference point of hypervolumes, or None.
        trials: Number of trials.
        objectives: The study's.
    """
    module = optunahub.load_local_module("pruners/pareto_front_pruner", registry_root=str(OURS))
    pruner = module.ParetoFrontPruner(first_rung, 4, reference)

    def ask(trial: optuna.Trial, values: Mapping[str, float], step: int) -> bool:
        pruner.report(trial, list(values.values()), step)
        return bool(pruner.should_prune(trial))

    return HubJudge(pruner, ask, trials, objectives)


def multi_metric(
    registry: Path, base: optuna.pruners.BasePruner, trials: int, objectives: Sequence[Objective]
) -> HubJudge:
    """OptunaHub's multi_metric_pruner, from a clone of the registry, by fronts (`joint`).

    Args:
        registry: The folder `package` of the clone.
        base: The pruner that it asks about ranks.
        trials: Number of trials.
        objectives: The study's.
    """
    module = optunahub.load_local_module("pruners/multi_metric_pruner", registry_root=str(registry))
    directions = {objective.metric: objective.direction for objective in objectives}
    pruner = module.MultiMetricPruner(base, metric_directions=directions, joint=True)

    def ask(trial: optuna.Trial, values: Mapping[str, float], step: int) -> bool:
        wrapped = module.MultiMetricPrunerTrial(trial)
        wrapped.report(values, step)
        return bool(wrapped.should_prune())

    return HubJudge(pruner, ask, trials, objectives)

from __future__ import annotations

from collections.abc import Sequence
import math
from typing import TYPE_CHECKING

import numpy as np
from optuna.pruners import BasePruner
from optuna.study import StudyDirection

from ._front import is_promoted


if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial


REPORTS = "pareto_front_pruner:reports"  # user attribute of a trial: its values by step


class ParetoFrontPruner(BasePruner):
    """Asynchronous successive halving by Pareto fronts, for studies with several objectives.

    Rungs are the steps ``min_resource``, ``min_resource * reduction_factor``, and so on. At a rung, a
    trial is compared with the trials that reported there before it: they are sorted into fronts, and
    the best ``1 / reduction_factor`` of them, rounded up, are promoted. No trial waits for another.

    Optuna's ``trial.report`` and ``trial.should_prune`` take one objective only; use those of the
    pruner. What trials report is kept in their user attributes, so that it is shared by all processes
    of a study and outlives them.

    Args:
        min_resource:
            The first rung, in steps.
        reduction_factor:
            One in how many trials is promoted at a rung.
        reference_point:
            The worst values that are of interest, in the order of the study's objectives. With it, a
            front that does not fit as a whole loses the trials that add least hypervolume; without
            it, trials that are spread evenly over the front are kept.
    """

    def __init__(
        self,
        min_resource: int = 1,
        reduction_factor: int = 4,
        reference_point: Sequence[float] | None = None,
    ) -> None:
        if min_resource < 1:
            raise ValueError(f"`min_resource` is {min_resource}, but must be at least 1.")
        if reduction_factor < 2:
            raise ValueError(f"`reduction_factor` is {reduction_factor}, but must be at least 2.")
        self._min_resource = min_resource
        self._eta = reduction_factor
        self._reference_point = reference_point

    def is_rung(self, step: int) -> bool:
        """Return whether trials may be pruned at a step, so that others need no evaluation."""
        rung = self._min_resource
        while rung < step:
            rung *= self._eta
        return rung == step

    def report(self, trial: optuna.Trial, values: Sequence[float], step: int) -> None:
        """Keep what a trial has reached at a step; a later report at the same step replaces it.

        Args:
            trial: The running trial.
            values: One for each objective of the study, in their order.
            step: Such as the number of epochs, from 1.
        """
        numbers = [float(value) for value in values]
        if len(numbers) != len(trial.study.directions):
            raise ValueError(
                f"{len(numbers)} values were reported, but the study has "
                f"{len(trial.study.directions)} objectives."
            )
        if not all(math.isfinite(number) for number in numbers):
            raise ValueError(f"The values {numbers} were reported, but must be finite.")
        reports = trial.user_attrs.get(REPORTS, {})
        trial.set_user_attr(REPORTS, {**reports, str(step): numbers})

    def should_prune(self, trial: optuna.Trial) -> bool:
        """Return whether a running trial is to be pruned at the step that it reported last."""
        trials = trial.study.get_trials(deepcopy=False)
        return self.prune(trial.study, trials[trial.number])

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Judge a trial at its last reported step; see the method of the base class."""
        reports = trial.user_attrs.get(REPORTS)
        if not reports:
            return False
        step = max(map(int, reports))
        if not self.is_rung(step):
            return False

        points = [
            other.user_attrs[REPORTS][str(step)]
            for other in study.get_trials(deepcopy=False)
            if other.number != trial.number and str(step) in other.user_attrs.get(REPORTS, {})
        ]
        points.append(reports[str(step)])
        signs = np.array([-1.0 if d == StudyDirection.MAXIMIZE else 1.0 for d in study.directions])
        worst = None if self._reference_point is None else signs * self._reference_point
        return not is_promoted(signs * np.array(points), self._eta, worst)

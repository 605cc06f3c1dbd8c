"""Optuna's side of a study: samplers, and a search algorithm for Ray Tune that keeps Optuna's study true."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from ofbnas import table
from ofbnas.config import ChoiceParam, IntParam, StudyConfig, SweepConfig
from ofbnas.errors import InputError
from ofbnas.sweep.journal import storage_of
from ofbnas.sweep.ray_quietly import OptunaSearch
from ofbnas.sweep.rungs import Reached
from ofbnas.trial import drop_checkpoints, write_failure


def has_running(config: StudyConfig, folder: Path) -> bool:
    """Whether Optuna still has trials as running."""
    study = optuna.load_study(study_name=config.name, storage=storage_of(folder))
    return any(trial.state == TrialState.RUNNING for trial in study.get_trials(deepcopy=False))


_NOTHING = object()
RUNGS = "rungs"  # a trial's user attribute: epoch to what it told there


class StudySearch(OptunaSearch):  # type: ignore[misc]  # ray has no types
    """Optuna's sampler for Ray Tune, with Optuna's study kept true.

    Every trial Tune runs is a trial of the study, by its number: told COMPLETE with the values of its row, PRUNED or
    FAIL. What an earlier driver left running is handed out first. Nothing is restored from Tune's own snapshots.
    """

    def __init__(self, config: StudyConfig, folder: Path) -> None:
        """Open the study in a folder, or make it, and bring it in line with the table."""
        super().__init__(
            space=lambda trial: None,
            metric=[objective.metric for objective in config.objectives],
            mode=[objective.mode for objective in config.objectives],
            storage=storage_of(folder),
            study_name=config.name,
        )
        self.folder, self.sweep = folder, config.sweep
        self.numbers: dict[str, int] = {}
        self.study: optuna.Study = self._ot_study
        if self.study.metric_names is None:
            self.study.set_metric_names(self.metric)
            for values in [*config.sweep.start, *grid_points(config.sweep, config.seed)]:
                self.study.enqueue_trial(values, skip_if_exists=True)
        # Another seed on each start: the same one would draw the same values again.
        self.study.sampler = sampler_of(config.sweep, config.seed + len(self.study.get_trials(deepcopy=False)))
        self.left_running = self._reconcile(config)

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """A trial's number and the values of its swept fields."""
        left = self.left_running
        trial = optuna.Trial(self.study, left.pop(0)._trial_id) if left else self.study.ask()
        self.numbers[trial_id] = trial.number
        return {"trial": trial.number, "params": draw(trial, self.sweep)}

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Progress is of no interest to the sampler."""

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Tell Optuna what the trial's row says; a trial without one failed."""
        self._tell(self.numbers[trial_id], table.read_row(self.folder, self.numbers[trial_id]))

    def reached(self) -> list[Reached]:
        """What trials have told at rungs, by trial and epoch."""
        return [
            Reached(trial.number, int(epoch), values)
            for trial in self.study.get_trials(deepcopy=False)
            for epoch, values in trial.user_attrs.get(RUNGS, {}).items()
        ]

    def remember(self, reached: Reached) -> None:
        """Keep what a running trial tells at a rung; what it told there before, in a run that was lost, goes."""
        trial = self.study.get_trials(deepcopy=False)[reached.trial]
        rungs = {**trial.user_attrs.get(RUNGS, {}), str(reached.epoch): dict(reached.values)}
        self.study._storage.set_trial_user_attr(trial._trial_id, RUNGS, rungs)

    def save(self, checkpoint_path: str) -> None:
        """Leave an empty snapshot: the journal has everything."""
        Path(checkpoint_path).touch()

    def _tell(self, number: int, row: Mapping[str, Any] | None) -> None:
        asked = [*self.metric, *self.sweep.constraints]
        known = {metric: row[metric] for metric in asked} if row and row["status"] == "complete" else {}
        if row and row["status"] == "pruned":
            self.study.tell(number, state=TrialState.PRUNED)
        elif not known or not all(value is not None and math.isfinite(value) for value in known.values()):
            self.study.tell(number, state=TrialState.FAIL)
        else:
            trial = optuna.Trial(self.study, self.study.get_trials(deepcopy=False)[number]._trial_id)
            for metric, bound in self.sweep.constraints.items():
                trial.set_constraint(metric, bound.excess(known[metric]))
            self.study.tell(number, [known[metric] for metric in self.metric])

    def _reconcile(self, config: StudyConfig) -> list[optuna.trial.FrozenTrial]:
        """Bring an earlier driver's leavings in order; the trials that have to be run again."""
        again = []
        for trial in self.study.get_trials(deepcopy=False):
            row = table.read_row(self.folder, trial.number)
            if row is not None:  # killed after its row was written, a trial may have left its checkpoints
                drop_checkpoints(self.folder, trial.number)
            if trial.state == TrialState.RUNNING and row is None:
                again.append(trial)
            elif trial.state == TrialState.RUNNING:
                self._tell(trial.number, row)
            elif row is None and trial.state != TrialState.WAITING:
                reason = "the driver was killed before the reason was recorded"
                write_failure(config, trial.params, trial.number, self.folder, reason)
        return again


def sampler_of(sweep: SweepConfig, seed: int) -> optuna.samplers.BaseSampler:
    """Optuna's sampler of a sweep.

    Raises:
        InputError: It does not take one of the options.
    """
    startup = min(10, max(1, sweep.n_trials // 2))
    kinds: dict[str, tuple[type[optuna.samplers.BaseSampler], dict[str, Any]]] = {
        "tpe": (optuna.samplers.TPESampler, {"multivariate": True, "n_startup_trials": startup}),
        "nsga2": (optuna.samplers.NSGAIISampler, {}),
        "nsga3": (optuna.samplers.NSGAIIISampler, {}),
        "gp": (optuna.samplers.GPSampler, {"n_startup_trials": startup}),
        "qmc": (optuna.samplers.QMCSampler, {"scramble": True}),
        "random": (optuna.samplers.RandomSampler, {}),
        "grid": (optuna.samplers.RandomSampler, {}),  # its points wait in the study from the start
    }
    kind, own = kinds[sweep.sampler]
    try:
        return kind(**own | {"seed": seed} | sweep.sampler_options)
    except (TypeError, ValueError) as error:
        raise InputError(f"sweep.sampler_options of {sweep.sampler}: {error}") from None


def grid_points(sweep: SweepConfig, seed: int) -> list[dict[str, Any]]:
    """All points of a grid in an order of chance; none for another sampler."""
    if sweep.sampler != "grid":
        return []
    values = [param.grid() or [] for param in sweep.params.values()]
    points = [dict(zip(sweep.params, point, strict=True)) for point in itertools.product(*values)]
    random.Random(seed).shuffle(points)
    return points


def draw(trial: optuna.Trial, sweep: SweepConfig) -> dict[str, Any]:
    """A trial's values for the swept fields but those whose condition fails; what it has already stays."""
    values: dict[str, Any] = {}
    for name, param in sweep.params.items():
        if any(values.get(other, _NOTHING) != value for other, value in param.when.items()):
            continue
        if isinstance(param, ChoiceParam):
            values[name] = trial.suggest_categorical(name, param.choices)
        elif isinstance(param, IntParam):
            values[name] = trial.suggest_int(name, param.low, param.high, log=param.log, step=param.step)
        else:
            values[name] = trial.suggest_float(name, param.low, param.high, log=param.log, step=param.step)
    return values

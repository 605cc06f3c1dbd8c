"""Optuna's side of a study: samplers, and a search algorithm for Ray Tune that keeps Optuna's study true."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from ofbnas import table
from ofbnas.config import ChoiceParam, IntParam, StudyConfig, SweepConfig
from ofbnas.sweep.journal import storage_of
from ofbnas.sweep.ray_quietly import OptunaSearch
from ofbnas.trial import write_failure


def has_running(config: StudyConfig, folder: Path) -> bool:
    """Whether Optuna still has trials as running."""
    study = optuna.load_study(study_name=config.name, storage=storage_of(folder))
    return any(trial.state == TrialState.RUNNING for trial in study.get_trials(deepcopy=False))


class StudySearch(OptunaSearch):  # type: ignore[misc]  # ray has no types
    """Optuna's sampler for Ray Tune, with Optuna's study kept true.

    Every trial Tune runs is a trial of the study, by its number: told COMPLETE with the values of its row, or FAIL.
    What an earlier driver left running is handed out first. Nothing is restored from Tune's own snapshots.
    """

    def __init__(self, config: StudyConfig, folder: Path) -> None:
        """Open the study in a folder, or make it, and bring it in line with the table."""
        directions = [objective.direction for objective in config.objectives]
        super().__init__(
            space=lambda trial: None,
            metric=[objective.metric for objective in config.objectives],
            mode=["max" if direction == "maximize" else "min" for direction in directions],
            storage=storage_of(folder),
            study_name=config.name,
        )
        self.folder, self.sweep = folder, config.sweep
        self.numbers: dict[str, int] = {}
        self.study: optuna.Study = self._ot_study
        if self.study.metric_names is None:
            self.study.set_metric_names(self.metric)
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

    def save(self, checkpoint_path: str) -> None:
        """Leave an empty snapshot: the journal has everything."""
        Path(checkpoint_path).touch()

    def _tell(self, number: int, row: Mapping[str, Any] | None) -> None:
        values = [row[metric] for metric in self.metric] if row and row["status"] == "complete" else None
        if values is None or not all(value is not None and math.isfinite(value) for value in values):
            self.study.tell(number, state=TrialState.FAIL)
        else:
            self.study.tell(number, values)

    def _reconcile(self, config: StudyConfig) -> list[optuna.trial.FrozenTrial]:
        """Bring an earlier driver's leavings in order; the trials that have to be run again."""
        again = []
        for trial in self.study.get_trials(deepcopy=False):
            row = table.read_row(self.folder, trial.number)
            if trial.state == TrialState.RUNNING and row is None:
                again.append(trial)
            elif trial.state == TrialState.RUNNING:
                self._tell(trial.number, row)
            elif row is None:
                reason = "the driver was killed before the reason was recorded"
                write_failure(config, trial.params, trial.number, self.folder, reason)
        return again


def sampler_of(sweep: SweepConfig, seed: int) -> optuna.samplers.BaseSampler:
    """Optuna's sampler of a sweep."""
    match sweep.sampler:
        case "tpe":
            startup = min(10, max(1, sweep.n_trials // 2))
            return optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=startup)
        case "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed)
        case "random":
            return optuna.samplers.RandomSampler(seed=seed)
        case "qmc":
            return optuna.samplers.QMCSampler(seed=seed, scramble=True)


def draw(trial: optuna.Trial, sweep: SweepConfig) -> dict[str, Any]:
    """A trial's values for the swept fields; those it has already stay."""
    values: dict[str, Any] = {}
    for name, param in sweep.params.items():
        if isinstance(param, ChoiceParam):
            values[name] = trial.suggest_categorical(name, param.choices)
        elif isinstance(param, IntParam):
            values[name] = trial.suggest_int(name, param.low, param.high, log=param.log, step=param.step)
        else:
            values[name] = trial.suggest_float(name, param.low, param.high, log=param.log, step=param.step)
    return values

"""Optuna's side of a study: samplers, and a search algorithm for Ray Tune that keeps Optuna's study true."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from ofbnas import table
from ofbnas.config import StudyConfig, SweepConfig
from ofbnas.errors import InputError
from ofbnas.ledger.points import draw
from ofbnas.ledger.record import bring_in_line, find_study, identity_of, told
from ofbnas.ledger.storage import storage_of
from ofbnas.sweep.ray_quietly import OptunaSearch
from ofbnas.sweep.rungs import Reached
from ofbnas.sweep.shared import SharedStorage, collect, drop_incoming
from ofbnas.trial import drop_checkpoints, write_failure


def has_running(config: StudyConfig, folder: Path) -> bool:
    """Whether Optuna still has trials as running, or lost the study."""
    study = find_study(config, folder, storage_of(config, folder))
    return study is None or any(trial.state == TrialState.RUNNING for trial in study.get_trials(deepcopy=False))


RUNGS = "rungs"  # a trial's user attribute: epoch to what it told there


def storage_at(config: StudyConfig, folder: Path) -> SharedStorage | None:
    """A study's own prefix in the shared storage, if there is one."""
    address = config.resources.storage_path
    if address is None:
        return None
    return SharedStorage(f"{address.rstrip('/')}/{config.name}-{identity_of(folder)[:12]}")


class StudySearch(OptunaSearch):  # type: ignore[misc]  # ray has no types
    """Optuna's sampler for Ray Tune, with Optuna's study kept true.

    Every trial Tune runs is a trial of the study, by its number: told COMPLETE with the values of its row, PRUNED or
    FAIL. What an earlier driver left running is handed out first. Nothing is restored from Tune's own snapshots.
    """

    def __init__(self, config: StudyConfig, folder: Path) -> None:
        """Open the study of a folder, or make it, and bring it in line with the settings and the table.

        Raises:
            InputError: It is another folder's, or may not change so.
            TransferError: Results in the shared storage cannot be had.
        """
        self.storage = storage_at(config, folder)
        if self.storage is not None:
            drop_incoming(folder)
            for trial in self.storage.results():
                collect(folder, self.storage, trial)
        storage = storage_of(config, folder)
        bring_in_line(config, folder, storage)
        super().__init__(
            space=lambda trial: None,
            metric=[objective.metric for objective in config.objectives],
            mode=[objective.mode for objective in config.objectives],
            storage=storage,
            study_name=config.name,
        )
        self.config, self.folder, self.sweep = config, folder, config.sweep
        self.numbers: dict[str, int] = {}
        self.study: optuna.Study = self._ot_study
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
        """Tell Optuna what the trial's row says; without one it is Tune's callback that knows why."""
        if self.row(self.numbers[trial_id]) is not None:
            self.tell(self.numbers[trial_id])

    def row(self, trial: int) -> dict[str, Any] | None:
        """A trial's row, fetched from the shared storage if it lies there; None if it has none."""
        if self.storage is not None and not table.has_row(self.folder, trial) and self.storage.has_result(trial):
            collect(self.folder, self.storage, trial)
        return table.read_row(self.folder, trial)

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
        """Leave an empty snapshot: Optuna's storage has everything."""
        Path(checkpoint_path).touch()

    def tell(self, number: int) -> None:
        """Tell Optuna what a trial's row says, and remove what it left where it ran."""
        row = table.read_row(self.folder, number)
        known = told(row, self.config)
        if row and row["status"] == "pruned":
            self.study.tell(number, state=TrialState.PRUNED)
        elif known is None:
            self.study.tell(number, state=TrialState.FAIL)
        else:
            trial = optuna.Trial(self.study, self.study.get_trials(deepcopy=False)[number]._trial_id)
            for metric, bound in self.sweep.constraints.items():
                trial.set_constraint(metric, bound.excess(known[metric]))
            self.study.tell(number, [known[metric] for metric in self.metric])
        if self.storage is not None:
            self.storage.drop("checkpoints", number)

    def _reconcile(self, config: StudyConfig) -> list[optuna.trial.FrozenTrial]:
        """Bring an earlier driver's leavings in order; the trials that have to be run again."""
        again = []
        for trial in self.study.get_trials(deepcopy=False):
            there = table.has_row(self.folder, trial.number)
            if there:  # killed after its row was written, a trial may have left its checkpoints
                drop_checkpoints(self.folder, trial.number)
            if trial.state == TrialState.RUNNING and not there:
                again.append(trial)
            elif trial.state == TrialState.RUNNING:
                self.tell(trial.number)
            elif not there and trial.state != TrialState.WAITING:
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

"""A search algorithm for Ray Tune that keeps a study in Optuna's storage up to date."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from ofbnas.config import StudyConfig
from ofbnas.study.cluster.shared_storage import (
    SharedStorage,
    download_results,
    remove_partial_downloads,
)
from ofbnas.study.cluster.tune_import import OptunaSearch
from ofbnas.study.trial import drop_checkpoints, write_failure
from ofbnas.study.tuning import optuna_private
from ofbnas.study.tuning.owner import identity_of
from ofbnas.study.tuning.points import draw
from ofbnas.study.tuning.record import (
    bring_in_line,
    find_study,
    set_constraints_,
    values_of_row,
)
from ofbnas.study.tuning.samplers import sampler_of
from ofbnas.study.tuning.storage import storage_of
from ofbnas.table import store
from ofbnas.table.columns import Row


def has_running(config: StudyConfig, folder: Path) -> bool:
    """Whether Optuna lists a trial as running, or has lost the study."""
    study = find_study(config, folder, storage_of(config, folder))
    if study is None:
        return True
    trials = study.get_trials(deepcopy=False)
    return any(trial.state == TrialState.RUNNING for trial in trials)


def storage_at(config: StudyConfig, folder: Path) -> SharedStorage | None:
    """The study's own prefix in the shared storage, or None without one."""
    address = config.resources.storage_path
    if address is None:
        return None
    # Folders of one name would otherwise share a prefix.
    identity = identity_of(folder)[:12]
    return SharedStorage(f"{address.rstrip('/')}/{config.name}-{identity}")


class StudySearch(OptunaSearch):  # type: ignore[misc]  # ray has no types
    """Optuna's sampler for Ray Tune, which keeps Optuna's study consistent with the table.

    Each trial that Tune runs is the trial of the study with the same number. It ends as COMPLETE
    with the values of its row, as PRUNED or as FAIL. Trials that an earlier driver left running are
    suggested first. Nothing is restored from Tune's own snapshots.
    """

    def __init__(self, config: StudyConfig, folder: Path) -> None:
        """Open or create the study of a folder, and reconcile it with the settings and the table.

        Raises:
            InputError: The study belongs to another folder, or a setting changed that may not.
            TransferError: Results could not be downloaded from the shared storage.
        """
        self.storage = storage_at(config, folder)
        if self.storage is not None:
            remove_partial_downloads(folder)
            for trial in self.storage.results():
                download_results(folder, self.storage, trial)

        storage = storage_of(config, folder)
        bring_in_line(config, folder, storage)
        super().__init__(
            # A space that does nothing: `suggest` draws the values, with the number of the trial.
            space=lambda trial: None,
            metric=[objective.metric for objective in config.objectives],
            mode=[objective.mode for objective in config.objectives],
            storage=storage,
            study_name=config.name,
        )
        self.config = config
        self.folder = folder
        self.sweep = config.sweep
        self.numbers: dict[str, int] = {}  # Optuna's number of a trial, by Tune's identifier
        self.study = optuna_private.study_of_search(self)

        # Another seed on each start: the same one would draw the same values again.
        num_trials = len(self.study.get_trials(deepcopy=False))
        seed = config.seed + num_trials
        self.study.sampler = sampler_of(config.sweep, seed)
        self.to_resume = self._reconcile(config)

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """Return the number of a trial and the values of its swept fields."""
        trial = self._next_trial()
        self.numbers[trial_id] = trial.number
        return {"trial": trial.number, "params": draw(trial, self.sweep)}

    def _next_trial(self) -> optuna.Trial:
        """A trial to resume, or else a new one."""
        if self.to_resume:
            return optuna_private.resumed_trial(self.study, self.to_resume.pop(0))
        return self.study.ask()

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Ignore reports of progress: they do not hold the objectives."""

    def on_trial_complete(
        self,
        trial_id: str,
        result: Mapping[str, Any] | None = None,
        error: bool = False,
    ) -> None:
        """Tell Optuna the result of a trial that has a row.

        A trial without a row is left to Tune's callback, which knows the reason.
        """
        number = self.numbers[trial_id]
        if self.row(number) is not None:
            self.tell(number)

    def row(self, trial: int) -> Row | None:
        """A trial's row, downloaded from the shared storage if need be; None if it has none."""
        if (
            self.storage is not None
            and not store.has_row(self.folder, trial)
            and self.storage.has_result(trial)
        ):
            download_results(self.folder, self.storage, trial)
        return store.read_row(self.folder, trial)

    def save(self, checkpoint_path: str) -> None:
        """Leave an empty snapshot: Optuna's storage has everything."""
        Path(checkpoint_path).touch()

    def tell(self, number: int) -> None:
        """Tell Optuna the result in a trial's row, and remove the trial's uploaded checkpoints."""
        row = store.read_row(self.folder, number)
        values = values_of_row(row, self.config)
        if row and row.status == "pruned":
            self.study.tell(number, state=TrialState.PRUNED)
        elif values is None:
            self.study.tell(number, state=TrialState.FAIL)
        else:
            # Constraints are set on a live trial, before `tell` makes it immutable.
            frozen = self.study.get_trials(deepcopy=False)[number]
            trial = optuna_private.resumed_trial(self.study, frozen)
            set_constraints_(trial, self.config, values)
            objectives = [values[metric] for metric in self.metric]
            self.study.tell(number, objectives)

        if self.storage is not None:
            self.storage.remove("checkpoints", number)

    def _reconcile(self, config: StudyConfig) -> list[optuna.trial.FrozenTrial]:
        """Finish what a killed driver left half done.

        Returns:
            The trials to resume.
        """
        to_resume = []
        for trial in self.study.get_trials(deepcopy=False):
            has_row = store.has_row(self.folder, trial.number)
            is_running = trial.state == TrialState.RUNNING
            if has_row:
                # A process killed just after it wrote the row may have left checkpoints.
                drop_checkpoints(self.folder, trial.number)

            if is_running and has_row:
                self.tell(trial.number)
            elif is_running:
                to_resume.append(trial)
            elif not has_row and trial.state != TrialState.WAITING:
                reason = "the driver was killed before the reason was recorded"
                write_failure(
                    config,
                    trial.params,
                    trial.number,
                    self.folder,
                    reason,
                )
        return to_resume

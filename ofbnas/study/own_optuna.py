"""A study's trial as the objective of someone's own Optuna study."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

import optuna
from optuna.trial import TrialState

from ofbnas.config import StudyConfig
from ofbnas.config.sweep import FrontStopping
from ofbnas.errors import InputError, is_full
from ofbnas.study.own import Prepared, prepared
from ofbnas.study.stopped import write_stopped
from ofbnas.study.trial import reason_of, run_trial, take_checkpoints, write_failure
from ofbnas.study.tuning.points import draw
from ofbnas.study.tuning.record import set_constraints_, values_of_row
from ofbnas.study.tuning.reports import before, remember
from ofbnas.study.tuning.rungs import Reached, by_front
from ofbnas.table import store
from ofbnas.table.columns import KNOWN_AT_RUNGS, Row
from ofbnas.training.events import Callback

# User attribute of a trial: the numbers that its run has had, each time it was interrupted a new one,
# and its seed. Optuna copies user attributes when it retries a trial whose process was lost.
RUN = "ofbnas_run"


class Objective:
    """Runs trials for `optuna.Study.optimize`; see `ofbnas.optuna.objective`.

    Attributes:
        config: The study.
        folder: Its folder.
        directions: Those of its objectives, for `optuna.create_study`.
        parent_costs: "gmacs" and "params" of the parent.
    """

    def __init__(
        self,
        config: StudyConfig,
        folder: Path,
        rungs: Collection[int] = (),
        device: str | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        """Train or load the parent; the arguments are those of `ofbnas.optuna.objective`.

        Raises:
            InputError: The study cannot run here, or has no such rungs.
        """
        _check_rungs(config, rungs)
        self.config = config
        self.folder = folder
        self.directions = [objective.direction for objective in config.objectives]
        self.rungs = frozenset(rungs)
        self.callbacks = callbacks
        self._busy = threading.Lock()
        self._prepared: Prepared = prepared(config, folder, device, callbacks)
        self.parent_costs = self._prepared.costs

    def __call__(self, trial: optuna.Trial) -> float | tuple[float, ...]:
        """Run a trial to its row.

        Returns:
            The values of the study's objectives: one, or a tuple.

        Raises:
            TrialPruned: It was stopped at a rung; its row has the status "pruned".
            InputError: The Optuna study does not fit, or the row lacks one of the values.
            Exception: Whatever ended the trial; its row has the status "failed", and the reason.
        """
        self._check(trial)
        if not self._busy.acquire(blocking=False):
            raise InputError(
                "a trial of this process is still running, and each sets the random states of its "
                "process: give n_jobs=1, and start more processes on the same storage instead"
            )
        try:
            row = self._run(trial)
        finally:
            self._busy.release()

        values = values_of_row(row, self.config)
        if values is None:
            asked = [
                *(one.metric for one in self.config.objectives),
                *self.config.sweep.constraints,
            ]
            raise InputError(
                f"trial {trial.number} has its row, but not a finite value of each of "
                f"{', '.join(asked)}"
            )
        set_constraints_(trial, self.config, values)
        objectives = tuple(values[objective.metric] for objective in self.config.objectives)
        return objectives if len(objectives) > 1 else objectives[0]

    def resume(self, study: optuna.Study) -> list[int]:
        """Enqueue trials that were interrupted again: each goes on from its last checkpoint.

        A trial was interrupted if it has begun, does not run, and has no row. Call this before
        `study.optimize`, while no other process runs trials of the study. Optuna gives such a trial
        a new number; it keeps its values and its seed.

        Args:
            study: Your study.

        Returns:
            The numbers of the interrupted trials.
        """
        trials = study.get_trials(deepcopy=False)
        went_on = _numbers_before(trials)
        interrupted = []
        for trial in trials:
            begun = RUN in trial.user_attrs and trial.state in (TrialState.RUNNING, TrialState.FAIL)
            if begun and trial.number not in went_on and not self._has_row(trial.number):
                interrupted.append(trial)
        for trial in interrupted:
            if trial.state == TrialState.RUNNING:
                study.tell(trial.number, state=TrialState.FAIL)
            study.enqueue_trial(trial.params, user_attrs=trial.user_attrs)
        return [trial.number for trial in interrupted]

    def _has_row(self, number: int) -> bool:
        return store.has_row(self.folder, number)

    def _check(self, trial: optuna.Trial) -> None:
        """Check that a trial's Optuna study is one for this study and its folder.

        Raises:
            InputError: It is not.
        """
        given = [direction.name.lower() for direction in trial.study.directions]
        if given != self.directions:
            asked = ", ".join(f"{one.metric} ({one.direction})" for one in self.config.objectives)
            raise InputError(
                f"the Optuna study has the directions {', '.join(given)}, but the objectives of "
                f"{self.config.name} are {asked}: make it with "
                "optuna.create_study(directions=objective.directions)"
            )
        if self._has_row(trial.number):
            raise InputError(
                f"{self.folder}: has a row of a trial {trial.number} already, of another Optuna "
                "study: give this one a folder of its own, or keep it in a storage and load it again"
            )

    def _run(self, trial: optuna.Trial) -> Row:
        """Run a trial; whatever ends it is in its row."""
        number = trial.number
        params = draw(trial, self.config.sweep)
        seed = self._begin(trial)
        reports = _Reports(self, trial)
        run = partial(run_trial, self.config, params, number, self.folder, self._prepared.data)
        try:
            return run(
                self._prepared.parent,
                [reports, *self.callbacks],
                rungs=self.rungs if len(self.directions) == 1 else None,
                seed=seed,
            )
        except optuna.TrialPruned:
            write_stopped(
                self.config,
                params,
                self.folder,
                reports.last,
                seconds=reports.seconds,
                gpus=float(self._prepared.data.device.type == "cuda"),
                parent=self.parent_costs,
                at_rung=reports.at_rung,
                seed=seed,
            )
            raise
        except Exception as error:
            if not is_full(error):  # of which no trial is at fault: it can be resumed
                write_failure(self.config, params, number, self.folder, reason_of(error), seed)
            raise

    def _begin(self, trial: optuna.Trial) -> int:
        """Take over the checkpoints of the trial that this one goes on from, if it does.

        Returns:
            The trial's seed.
        """
        number = trial.number
        run = trial.user_attrs.get(RUN, {"numbers": [], "seed": self.config.seed + number})
        # In this order, a process killed in between leaves a trial that knows where to look.
        trial.set_user_attr(RUN, {**run, "numbers": [*run["numbers"], number]})
        take_checkpoints(self.folder, run["numbers"], number)
        seed: int = run["seed"]
        return seed


class _Reports(Callback):
    """Reports a trial's rungs to Optuna, and ends the trial where it is pruned.

    Attributes:
        last: What was reported at the last rung.
        seconds: How long the trial had run by then.
        at_rung: Number of trials that had reached it, where that is known.
    """

    last: Reached
    seconds: float
    at_rung: int | None = None

    def __init__(self, objective: Objective, trial: optuna.Trial) -> None:
        self.objective = objective
        self.trial = trial

    def on_rung(self, epoch: int, metrics: dict[str, float]) -> None:
        """Report a rung.

        Raises:
            TrialPruned: The trial is to stop here.
        """
        values = {name: metrics[name] for name in KNOWN_AT_RUNGS}
        self.last = Reached(self.trial.number, epoch, values)
        self.seconds = metrics["seconds"]
        if not self._goes_on():
            raise optuna.TrialPruned(f"stopped after epoch {epoch}")

    def _goes_on(self) -> bool:
        """Whether the trial continues: Optuna takes reports of one objective only."""
        objectives = self.objective.config.objectives
        if len(objectives) > 1:
            return self._is_promoted()
        self.trial.report(self.last.values[objectives[0].metric], self.last.epoch)
        return not self.trial.should_prune()

    def _is_promoted(self) -> bool:
        """Whether the trial is promoted by its study's rule, which is front where there is one."""
        config = self.objective.config
        assert isinstance(
            config.sweep.early_stopping, FrontStopping
        )  # `_check_rungs` refuses others
        study = self.trial.study
        went_on = _numbers_before(study.get_trials(deepcopy=False))
        earlier = [other for other in before(study, self.last) if other.trial not in went_on]
        remember(study, self.last)
        self.at_rung = sum(other.epoch == self.last.epoch for other in earlier) + 1
        largest = {"val_top1": 100.0, **self.objective.parent_costs}
        return by_front(config.sweep.early_stopping, config.objectives, largest, earlier, self.last)


def _numbers_before(trials: Sequence[optuna.trial.FrozenTrial]) -> set[int]:
    """The numbers of interrupted trials that others go on from, or wait to."""
    return {
        number
        for trial in trials
        for number in trial.user_attrs.get(RUN, {"numbers": []})["numbers"]
        if number != trial.number
    }


def _check_rungs(config: StudyConfig, rungs: Collection[int]) -> None:
    """Check that someone can decide at a study's rungs.

    Raises:
        InputError: Nobody can.
    """
    stopping = config.sweep.early_stopping
    if stopping is not None and not isinstance(stopping, FrontStopping):
        raise InputError(
            f"sweep.early_stopping.method {stopping.method} is a rule of Ray's; in your own study "
            "its pruner decides: leave early_stopping out, give rungs here, and "
            "optuna.create_study a pruner"
        )
    if not rungs:
        return
    if len(config.objectives) > 1:
        raise InputError(
            f"rungs are given, but Optuna takes no reports of {len(config.objectives)} objectives; "
            "use sweep.early_stopping: {method: front}, or one objective"
        )
    metric = config.objectives[0].metric
    if metric not in KNOWN_AT_RUNGS:
        raise InputError(
            f"rungs are given, but {metric} is not known before a trial ends; in its search there "
            f"are {', '.join(KNOWN_AT_RUNGS)}"
        )

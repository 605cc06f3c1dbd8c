"""The driver's side of running trials: shows them, ends stalled ones, and records lost ones."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from ofbnas.config import StudyConfig
from ofbnas.errors import TransferError
from ofbnas.study.cluster.disk import EarlyEnd
from ofbnas.study.cluster.histories import Histories
from ofbnas.study.cluster.ray_import import ray
from ofbnas.study.cluster.sampling import StudySearch
from ofbnas.study.cluster.tune_import import tune
from ofbnas.study.cluster.watch import Watch
from ofbnas.study.trackers.mirror import Mirror
from ofbnas.study.trial import write_failure

log = logging.getLogger("ofbnas")


class View(Protocol):
    """Shows the progress of a study."""

    def stage(self, what: str) -> None:
        """What is done before trials, such as "the images are read"."""

    def parent(self, epoch: int, epochs: int, record: Mapping[str, Any]) -> None:
        """The parent was trained for another epoch, of which there is a record."""

    def begin(self, done: int, wanted: int) -> None:
        """Trials are about to start; `done` of `wanted` are over already."""

    def started(self, trial: int) -> None:
        """A trial has started."""

    def progress(
        self,
        trial: int,
        phase: str,
        epoch: int,
        epochs: int,
        history: Sequence[Mapping[str, Any]],
    ) -> None:
        """A trial has reached an epoch of "search" or "finetune"; `history` has its records."""

    def again(self, trial: int, reason: str) -> None:
        """A trial's process was lost; the trial waits to be started again."""

    def ended(self, trial: int) -> None:
        """A trial has its row."""

    def warn(self, line: str) -> None:
        """Something went wrong that does not end the study; called from any thread."""


class TrialEvents(tune.Callback):  # type: ignore[misc]  # ray has no types
    """Forwards Tune's events to the view and the watch, and writes the rows of lost trials."""

    def __init__(
        self,
        config: StudyConfig,
        search: StudySearch,
        end: EarlyEnd,
        view: View,
        mirror: Mirror,
    ) -> None:
        """Set up for one run of a study.

        Args:
            config: The study.
            search: Knows its trials.
            end: Ends the study if the shared storage is lost.
            view: Shows what happens.
            mirror: Passes it on to trackers.
        """
        self.config = config
        self.search = search
        self.folder = search.folder
        self.end = end
        self.view = view
        self.mirror = mirror
        self.watch = Watch(config.resources)
        self.histories = Histories(self.folder, config.name, write=search.storage is not None)

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune pickles its callbacks, which a view does not support."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Watch and show a trial that has started."""
        number = trial.config["trial"]
        # Killing the actor works even where its process is stopped (SIGSTOP) and answers nothing.
        kill = partial(ray.kill, trial.temporary_state.ray_actor)
        self.watch.started(number, kill)
        self.histories.begin(number)
        self.mirror.begin(number, trial.config["params"])
        self.view.started(number)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """End trials that have stalled.

        Tune calls this regularly, also while no trial reports anything. It notices by itself that
        the process of a trial was killed here.
        """
        self.watch.look()

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Any],
        trial: Any,
        result: Mapping[str, Any],
        **info: Any,
    ) -> None:
        """Record and show an epoch."""
        number = trial.config["trial"]
        phase = result["phase"]
        self.histories.add(number, result["records"])
        self.mirror.records(number, result["records"])
        if phase in ("search", "finetune"):
            self.watch.epoch(number, phase)
            epoch = result["epoch"]
            history = self.histories.records[number]
            self.view.progress(number, phase, epoch, result["epochs"], history)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Show the end of a trial; without a row it met a full disk, and is resumed later."""
        number = trial.config["trial"]
        self.watch.over(number)
        self.histories.end(number)
        self._ended(number)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Show that a trial's process was lost and that Tune starts the trial again."""
        number = trial.config["trial"]
        reason = self._why_lost(trial)
        self.watch.over(number)
        log.info("trial %d starts again", number)
        self.view.again(number, reason)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Write the row of a trial whose process was lost more often than allowed.

        A lost storage is no trial's fault: it ends the study, and the trial can be resumed.
        """
        number = trial.config["trial"]
        reason = self._why_lost(trial)
        self.watch.over(number)
        self.histories.end(number)
        if self.search.row(number) is None:
            storage_error = f"{TransferError.__name__}: "
            if storage_error in reason:
                message = reason.partition(storage_error)[2]
                self.end.say(TransferError(message))
                return
            write_failure(
                self.config,
                trial.config["params"],
                number,
                self.folder,
                reason[:500],
            )
            self.search.tell(number)
        self._ended(number)

    def _ended(self, number: int) -> None:
        """Show and mirror that a trial is over, if it has its row."""
        row = self.search.row(number)
        if row is not None:
            self.view.ended(number)
            self.mirror.end(row)

    def _why_lost(self, trial: Any) -> str:
        """Why a trial's process is gone, in one line."""
        number = trial.config["trial"]
        file = Path(trial.error_file or "")
        if number in self.watch.ended:
            return self.watch.ended[number]
        if not file.is_file():
            return "its process was lost"

        # Tune appends each error to this file, so the last line is of the newest. trial.get_error()
        # looks for the file at a path where it is not written yet.
        lines = file.read_text().strip().splitlines()
        line = lines[-1]
        log.warning("trial %d lost its process: %s", number, line)
        if "Error: " in line:
            return line
        return line.partition(". ")[0]  # after its first sentence, Ray gives hints for debugging

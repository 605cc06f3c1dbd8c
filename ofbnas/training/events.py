"""Events of a training run: for a progress view, a trial, early stopping, or a user's own code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

Phase = Literal["parent", "search", "finetune"]


class Callback:
    """Called at each event of a run. Subclass it and override what you need; defaults do nothing.

    With several processes, each one calls its own callbacks, with the same numbers in all of them.
    An exception that a callback raises ends the run, which can be resumed from its last checkpoint.
    """

    def on_fit_begin(
        self,
        phase: Phase,
        epoch: int,
        epochs: int,
    ) -> None:
        """A run starts or is resumed.

        Args:
            phase: What is trained.
            epoch: Number of epochs that are done already.
            epochs: Number of epochs of the whole run.
        """

    def on_step(
        self,
        phase: Phase,
        step: int,
        losses: Mapping[str, Tensor],
    ) -> None:
        """An optimizer step was applied.

        Args:
            phase: What is trained.
            step: Number of the step, from 0, counted over all epochs.
            losses: Losses of this step by name, [] each. They are on the device, and reading one
                waits for it.
        """

    def on_decision(self, record: Mapping[str, Any]) -> None:
        """A search has made a decision: options may have been removed, and the network shrunk.

        Args:
            record: A row of the history, as `ofbnas.table.schema.HISTORY_SCHEMA` describes it.
        """

    def on_record(self, record: Mapping[str, Any]) -> None:
        """The history has another row: of a decision, or of an epoch, before its checkpoint.

        A run that is resumed first repeats, after `on_fit_begin`, the rows that its checkpoint has.

        Args:
            record: The row, as `ofbnas.table.schema.HISTORY_SCHEMA` describes it.
        """

    def on_rung(self, epoch: int, metrics: dict[str, float]) -> None:
        """A search has reached a rung, at which it may be stopped.

        Args:
            epoch: Number of epochs that are done.
            metrics: Projected final metrics by column of the table: "val_top1", "gmacs", "params".
                A callback may add some for the callbacks after it.
        """

    def on_epoch(
        self,
        phase: Phase,
        epoch: int,
        epochs: int,
        losses: Mapping[str, float],
    ) -> None:
        """An epoch is done, and its checkpoint has been written.

        Args:
            phase: What is trained.
            epoch: Number of the epoch, from 1.
            epochs: Number of epochs of the whole run.
            losses: Mean of each loss over the epoch and all processes.
        """

    def on_end(self, phase: Phase) -> None:
        """All epochs are done."""

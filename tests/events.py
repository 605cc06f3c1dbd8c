"""A callback that records events, and may stand in for a process that is killed."""

from __future__ import annotations

from ofbnas.training.events import Callback


class Killed(Exception):
    """Stands for the death of the process, which only files survive."""


class Recorder(Callback):
    """Records events, and raises Killed after an epoch, a (phase, epoch), or at a rung."""

    def __init__(
        self, *, killed_after: int | None = None, killed_at_rung: int | None = None
    ) -> None:
        self.killed_after = killed_after
        self.killed_at_rung = killed_at_rung
        self.events = []  # names of the methods, in order
        self.epochs = []  # (epoch, losses)
        self.rungs = []  # (epoch, metrics)
        self.decisions = []

    def on_fit_begin(self, phase, epoch, epochs):
        self.events.append(("begin", phase, epoch, epochs))

    def on_step(self, phase, step, losses):
        self.events.append(("step", phase, step))

    def on_decision(self, record):
        self.events.append(("decision", record["step"]))
        self.decisions.append(record)

    def on_rung(self, epoch, metrics):
        self.events.append(("rung", epoch))
        self.rungs.append((epoch, metrics))
        if epoch == self.killed_at_rung:
            raise Killed

    def on_epoch(self, phase, epoch, epochs, losses):
        self.events.append(("epoch", phase, epoch, epochs))
        self.epochs.append((epoch, losses))
        if self.killed_after in (epoch, (phase, epoch)):
            raise Killed

    def on_end(self, phase):
        self.events.append(("end", phase))

"""A watchdog in the driver that ends attempts at trials that take too long or have stalled."""

from __future__ import annotations

import logging
import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from ofbnas.config.study import ResourcesConfig

RECENT = 100  # last epochs of a phase; their median is the usual duration
# Seconds without an epoch that are allowed as long as no trial has finished one to compare with.
UNKNOWN = 86_400.0
STEP = 5.0  # seconds by which the clock advances at most between two looks
log = logging.getLogger("ofbnas")


@dataclass
class _Attempt:
    """One attempt at a trial, in seconds of the watch's clock.

    Attributes:
        end: Ends its process.
        started: When it began.
        heard: When its last epoch ended; before the first epoch, when it began.
    """

    end: Callable[[], None]
    started: float
    heard: float


class Watch:
    """Knows how long each trial has been running, and how long ago it last reported an epoch.

    Its clock counts only the time in which the driver was looking: a driver that was itself
    stopped, or was busy, could not receive reports, and must not blame a trial for that.

    Attributes:
        ended: Why the last attempt at a trial was ended by the watch, by the trial's number.
    """

    def __init__(
        self, resources: ResourcesConfig, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Watch with a study's limits.

        Args:
            resources: The limits.
            clock: Returns seconds since an arbitrary moment.
        """
        self.resources = resources
        self.clock = clock
        self.ended: dict[int, str] = {}
        self._now = 0.0
        self._looked = clock()
        self._running: dict[int, _Attempt] = {}
        # Seconds of the last epochs of each phase.
        self._epochs: dict[str, deque[float]] = {}

    def started(self, trial: int, end: Callable[[], None]) -> None:
        """Record that an attempt at a trial begins; `end` is called to end it."""
        self.ended.pop(trial, None)
        self._running[trial] = _Attempt(end, started=self._now, heard=self._now)

    def epoch(self, trial: int, phase: str) -> None:
        """Record that a trial has finished an epoch of "search" or "finetune"."""
        attempt = self._running.get(trial)
        if attempt is None:  # ended while this report was on its way
            return
        seconds = self._epochs.setdefault(phase, deque(maxlen=RECENT))
        seconds.append(self._now - attempt.heard)
        attempt.heard = self._now

    def over(self, trial: int) -> None:
        """Record that an attempt at a trial is over, however it ended."""
        self._running.pop(trial, None)

    def look(self) -> None:
        """Advance the clock, and end attempts that have taken too long."""
        now = self.clock()
        elapsed = now - self._looked
        self._now += min(elapsed, STEP)
        self._looked = now
        for trial, attempt in list(self._running.items()):
            reason = self._reason(attempt)
            if reason is not None:
                log.warning("trial %d is ended: %s", trial, reason)
                self.over(trial)
                self.ended[trial] = reason
                attempt.end()

    def _reason(self, attempt: _Attempt) -> str | None:
        """Why an attempt has to be ended, or None."""
        limits = self.resources
        age = self._now - attempt.started
        if limits.trial_timeout is not None and age > limits.trial_timeout:
            return f"ran for more than the {limits.trial_timeout:g} s of resources.trial_timeout"

        silence = self._now - attempt.heard
        if limits.stall_factor is None or silence <= limits.stall_floor:
            return None
        if not self._epochs:
            if silence <= UNKNOWN:
                return None
            return f"no epoch for {silence:.0f} s, nor of any other trial"

        # Of the slower phase: the watch does not know which one the attempt is in.
        usual = max(statistics.median(seconds) for seconds in self._epochs.values())
        if silence <= limits.stall_factor * usual:
            return None
        times = silence / usual
        return f"no epoch for {silence:.0f} s, {times:.0f} times the usual {usual:.3g} s"

"""The progress of a running study on standard error: live on a terminal, otherwise in lines."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ofbnas.cli.curves import accuracy_curve, facts
from ofbnas.cli.output import cell, counted, plain, say
from ofbnas.training.events import Callback, Phase

if TYPE_CHECKING:
    import pandas as pd

    from ofbnas.config import StudyConfig

FRONT_ROWS = 8  # how many points of the front the live view shows
RUNNING_ROWS = 8  # how many running trials it shows
FRONT_COLUMNS = ["arch_id", "gmacs", "params", "val_top1", "top1"]


def view_of(config: StudyConfig, folder: Path, *, plain: bool) -> PlainView:
    """The live view if standard error is a terminal, otherwise, or if `plain`, lines."""
    console = Console(stderr=True)
    if console.is_terminal and not plain:
        return LiveView(config, folder, console)
    return PlainView(config, folder, console)


class EpochLines(Callback):
    """One line for each epoch, for a search without Ray."""

    def __init__(self) -> None:
        self.record: Mapping[str, Any] = {}

    def on_record(self, record: Mapping[str, Any]) -> None:
        """Keep what was measured of an epoch."""
        self.record = record

    def on_epoch(self, phase: Phase, epoch: int, epochs: int, losses: Mapping[str, float]) -> None:
        """Print an epoch."""
        say(f"{phase}: epoch {epoch} of {epochs}: {facts(self.record)}", err=True)


class PlainView:
    """One line for each trial that ends, and a few for the parent."""

    def __init__(self, config: StudyConfig, folder: Path, console: Console) -> None:
        self.config = config
        self.folder = folder
        self.console = console
        self.start = time.monotonic()
        self.trials_start = self.start
        self.before = 0  # trials that had ended when this run of the study began
        self.done = 0  # these, and the trials that have ended since
        self.wanted = config.sweep.n_trials
        self.running: dict[int, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return

    def stage(self, what: str) -> None:
        """What is done before trials; no line, as a study that is refused gets one line alone."""

    def parent(self, epoch: int, epochs: int, record: Mapping[str, Any]) -> None:
        """The parent was trained for another epoch."""
        quarter = max(1, epochs // 4)
        if epoch == epochs or epoch % quarter == 0:
            self.say(f"parent: epoch {epoch} of {epochs}: {facts(record)}")

    def begin(self, done: int, wanted: int) -> None:
        """Trials are about to start."""
        self._begin(done, wanted)
        log = self.folder / "study.log"
        self.say(f"{counted(wanted - done, 'trial')} to run, {done} done; log in {log}")

    def _begin(self, done: int, wanted: int) -> None:
        """Start to count trials and their time."""
        self.before = done
        self.done = done
        self.wanted = wanted
        self.trials_start = time.monotonic()

    def started(self, trial: int) -> None:
        """A trial has started."""
        self.running[trial] = "starts"

    def progress(
        self,
        trial: int,
        phase: str,
        epoch: int,
        epochs: int,
        history: Sequence[Mapping[str, Any]],
    ) -> None:
        """A trial is in another epoch."""
        words = [f"{phase} {epoch}/{epochs}", accuracy_curve(history)]
        if history:
            words.append(facts(history[-1]))
        self.running[trial] = "  ".join(filter(None, words))

    def again(self, trial: int, reason: str) -> None:
        """A trial was lost, and will be restarted."""
        self.running[trial] = "starts again"
        self.say(f"trial {trial} starts again: {reason}")

    def ended(self, trial: int) -> None:
        """A trial has its row."""
        from ofbnas.table.store import read_row

        self.running.pop(trial, None)
        self.done += 1
        row = read_row(self.folder, trial)
        if row is None:
            result = "failed: no row was written"
        elif row.status != "complete":
            result = f"{row.status}: {row.reason}"
        else:
            result = f"top1 {row.top1:.2f}, {cell('gmacs', row.gmacs)}, {row.arch_id}"
        count = f"{self.done} of {self.wanted}"
        self.say(f"trial {trial}: {result} ({count}, {self.time_left()})")

    def warn(self, line: str) -> None:
        """Something went wrong that does not end the study."""
        self.say(f"warning: {line}")

    def time_left(self) -> str:
        """The time left, estimated from the trials of this run."""
        ended = self.done - self.before
        if ended == 0:
            return "time left unknown"
        # A running trial is half done on average. Concurrent trials need no special treatment: this
        # is the time per trial of all workers together.
        half_done = len(self.running) / 2
        elapsed = time.monotonic() - self.trials_start
        seconds_per_trial = elapsed / (ended + half_done)
        trials_left = max(0, self.wanted - self.done - half_done)
        return f"about {clock(seconds_per_trial * trials_left)} left"

    def say(self, line: str) -> None:
        """Print a line after the time since the start."""
        elapsed = clock(time.monotonic() - self.start)
        self.console.print(plain(f"{elapsed}  {line}"), soft_wrap=True)


class LiveView(PlainView):
    """Trials done and running, the front so far and the time left, updated in place."""

    def __init__(self, config: StudyConfig, folder: Path, console: Console) -> None:
        super().__init__(config, folder, console)
        self.before_trials = "starting"  # empty once trials run
        self.front: list[dict[str, object]] = []
        self.statuses: Counter[str] = Counter()
        self.live = Live(
            get_renderable=self.render,
            console=console,
            refresh_per_second=4,
            transient=True,  # the front is printed at the end instead
        )

    def __enter__(self) -> Self:
        self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.live.stop()

    def stage(self, what: str) -> None:
        """Show what is done before trials."""
        self.before_trials = what

    def parent(self, epoch: int, epochs: int, record: Mapping[str, Any]) -> None:
        """The parent was trained for another epoch."""
        trained = f"the parent is trained, epoch {epoch} of {epochs}"
        self.before_trials = f"{trained}: {facts(record)}"

    def begin(self, done: int, wanted: int) -> None:
        """Trials are about to start."""
        from ofbnas.table.store import read_table

        self._begin(done, wanted)
        self.before_trials = ""
        self._add(read_table(self.folder))

    def ended(self, trial: int) -> None:
        """A trial has its row."""
        import pandas as pd

        from ofbnas.table.store import read_row

        self.running.pop(trial, None)
        self.done += 1
        row = read_row(self.folder, trial)
        if row is not None:
            self._add(pd.DataFrame([row.values()]))

    def render(self) -> RenderableType:
        """The view as it is now."""
        elapsed = clock(time.monotonic() - self.start)
        if self.before_trials:
            return Text(f"{self.config.name}   {self.before_trials}   {elapsed}")

        counts = f"{self.done} of {counted(self.wanted, 'trial')}"
        for status in ("failed", "pruned"):
            count = self.statuses[status]
            if count:
                counts += f", {count} {status}"
        name = (self.config.name, "bold")
        times = f"{elapsed}, {self.time_left()}"
        head = Text.assemble(name, f"   {counts}   {times}")

        # In a grid, since a bar does not end its line.
        bar = ProgressBar(total=self.wanted, completed=self.done, width=60)
        grid = Table.grid()
        grid.add_row(bar)
        states = []
        for trial, state in sorted(self.running.items()):
            states.append(f"trial {trial}: {state}")
        left_out = len(states) - RUNNING_ROWS
        if left_out > 0:
            states[RUNNING_ROWS:] = [f"and {left_out} more"]
        running = Text("\n".join(states) or "trials start", style="dim", no_wrap=True)
        return Group(head, grid, running, self._front_table())

    def _front_table(self) -> RenderableType:
        """The last points of the front, which are those of highest accuracy."""
        if not self.front:
            return Text("")
        table = Table(
            box=box.SIMPLE_HEAD, pad_edge=False, title="best so far", title_justify="left"
        )
        for column in FRONT_COLUMNS:
            table.add_column(column, justify="left" if column == "arch_id" else "right")
        for row in self.front[-FRONT_ROWS:]:
            cells = [cell(column, row[column]) for column in FRONT_COLUMNS]
            table.add_row(*map(plain, cells))
        return table

    def _add(self, rows: pd.DataFrame) -> None:
        """Add new rows to the counts and the front.

        In a large study, reading all rows again after each trial would take too long.
        """
        import pandas as pd

        from ofbnas.table.front import front
        from ofbnas.table.query import to_records

        self.statuses.update(rows["status"])
        # The front of a front and of new rows is the front of all rows.
        best = pd.DataFrame(self.front, columns=FRONT_COLUMNS)
        candidates = pd.concat([best, rows[FRONT_COLUMNS]], ignore_index=True)
        self.front = to_records(front(candidates))


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{rest:02d}"
    return f"{minutes}:{rest:02d}"

"""What is seen of a study while it runs: a live view on a terminal, plain lines elsewhere. On standard error."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ofbnas.cli.output import cell

if TYPE_CHECKING:
    import pandas as pd

    from ofbnas.config import StudyConfig

ROWS = 8  # of the front in the live view
BEST = ["arch_id", "gmacs", "params", "top1"]  # its columns


def view_of(config: StudyConfig, folder: Path, *, plain: bool) -> PlainView:
    """The live view where standard error is a terminal, plain lines elsewhere or if asked for."""
    console = Console(stderr=True)
    return (
        LiveView(config, folder, console) if console.is_terminal and not plain else PlainView(config, folder, console)
    )


class PlainView:
    """One line for each trial that ends, and a few for the parent."""

    def __init__(self, config: StudyConfig, folder: Path, console: Console) -> None:
        self.config, self.folder, self.console = config, folder, console
        self.start = time.monotonic()
        self.trials_start = self.start
        self.done = self.before = 0
        self.wanted = config.sweep.n_trials
        self.running: dict[int, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def parent(self, epoch: int, epochs: int) -> None:
        """The parent was trained for another epoch."""
        if epoch == epochs or epoch % max(1, epochs // 4) == 0:
            self.say(f"parent: epoch {epoch} of {epochs}")

    def begin(self, done: int, wanted: int) -> None:
        """Trials are about to start."""
        self.done = self.before = done
        self.wanted = wanted
        self.trials_start = time.monotonic()
        self.say(f"{wanted - done} trials to run, {done} done; log in {self.folder / 'study.log'}")

    def started(self, trial: int) -> None:
        """A trial runs."""
        self.running[trial] = "starts"

    def progress(self, trial: int, phase: str, epoch: int, epochs: int) -> None:
        """A trial is in another epoch."""
        self.running[trial] = f"{phase} {epoch}/{epochs}"

    def ended(self, trial: int) -> None:
        """A trial has its row."""
        from ofbnas.table import read_row

        self.running.pop(trial, None)
        self.done += 1
        row = read_row(self.folder, trial)
        if row is None or row["status"] != "complete":
            result = f"{row['status']}: {row['reason']}" if row else "failed: no row was written"
        else:
            result = f"top1 {row['top1']:.2f}, {row['gmacs']:.4g} GMACs, {row['arch_id']}"
        self.say(f"trial {trial}: {result} ({self.done} of {self.wanted}, {self.left()})")

    def left(self) -> str:
        """Time left, from this run's trials so far; those that run count as half done."""
        if self.done == self.before:
            return "time left unknown"
        running = len(self.running) / 2
        pace = (time.monotonic() - self.trials_start) / (self.done - self.before + running)
        seconds = pace * max(0, self.wanted - self.done - running)
        return f"about {clock(seconds)} left"

    def say(self, line: str) -> None:
        """Print a line."""
        self.console.print(f"{clock(time.monotonic() - self.start)}  {line}", highlight=False, soft_wrap=True)


class LiveView(PlainView):
    """Trials done and running, the best front so far and the time left, in place."""

    def __init__(self, config: StudyConfig, folder: Path, console: Console) -> None:
        super().__init__(config, folder, console)
        self.parent_state = "is looked up"
        self.front: list[dict[str, object]] = []
        self.endings: Counter[str] = Counter()
        self.live = Live(get_renderable=self.render, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.live.stop()

    def parent(self, epoch: int, epochs: int) -> None:
        """The parent was trained for another epoch."""
        self.parent_state = f"is trained, epoch {epoch} of {epochs}"

    def begin(self, done: int, wanted: int) -> None:
        """Trials are about to start."""
        from ofbnas.table import read_table

        self.done = self.before = done
        self.wanted, self.trials_start, self.parent_state = wanted, time.monotonic(), ""
        self._look(read_table(self.folder))

    def ended(self, trial: int) -> None:
        """A trial has its row."""
        import pandas as pd

        from ofbnas.table import read_row

        self.running.pop(trial, None)
        self.done += 1
        self._look(pd.DataFrame([read_row(self.folder, trial)]))

    def render(self) -> RenderableType:
        """What is seen now."""
        elapsed = clock(time.monotonic() - self.start)
        endings = "".join(f", {self.endings[end]} {end}" for end in ("failed", "pruned") if self.endings[end])
        if self.parent_state:
            return Text(f"{self.config.name}   parent {self.parent_state}   {elapsed}")
        head = Text.assemble(
            (self.config.name, "bold"),
            f"   {self.done} of {self.wanted} trials{endings}   {elapsed}, {self.left()}",
        )
        running = "   ".join(f"trial {trial}: {state}" for trial, state in sorted(self.running.items()))
        bar = Table.grid()
        bar.add_row(ProgressBar(total=self.wanted, completed=self.done, width=60))
        return Group(head, bar, Text(running or "waiting for Ray", style="dim"), self._front_table())

    def _front_table(self) -> RenderableType:
        if not self.front:
            return Text("")
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="best so far", title_justify="left")
        for column in BEST:
            table.add_column(column, justify="left" if column == "arch_id" else "right")
        for row in self.front[-ROWS:]:
            table.add_row(*(cell(column, row[column]) for column in BEST))
        return table

    def _look(self, rows: pd.DataFrame) -> None:
        """Look at rows that are new, together with the best so far: all rows would take too long in a large study."""
        import pandas as pd

        from ofbnas.front import front
        from ofbnas.table import to_records

        self.endings.update(rows["status"])
        best = pd.concat([pd.DataFrame(self.front, columns=BEST), rows[BEST]], ignore_index=True)
        self.front = to_records(front(best))


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"

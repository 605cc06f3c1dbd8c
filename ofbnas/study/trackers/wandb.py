"""Weights & Biases: a run of each trial, in a group of the study."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from ofbnas.config.trackers import WandbConfig
from ofbnas.errors import InputError
from ofbnas.study.trackers.tracker import Tracker, description_of, metrics_of
from ofbnas.table.columns import Row


class Wandb(Tracker):
    """Curves as `search/val_top1` by epoch; configuration, summary and pictures."""

    def __init__(self, options: WandbConfig, study: str, folder: Path, identity: str) -> None:
        """Set up.

        Args:
            options: The tracker's.
            study: Name of the study.
            folder: The study's, where files are kept that are not uploaded yet.
            identity: Tells this study from others of its name.

        Raises:
            InputError: There is no key to go online with. It is not asked for, since the terminal
                shows the study.
        """
        if options.mode == "online" and not wandb.login(prompt=False):
            raise InputError("has no key; give WANDB_API_KEY, run `wandb login`, or go offline")
        self.options = options
        self.study = study
        self.folder = folder
        self.group = f"{study}-{identity[:8]}"
        self.runs: dict[int, Any] = {}

    def begin(self, trial: int, params: Mapping[str, Any]) -> None:
        """Begin a run; that of an earlier attempt ends as failed."""
        if trial in self.runs:
            self.runs.pop(trial).finish(exit_code=1)
        run = self._run(f"trial-{trial:05d}", dict(params))
        for phase in ("search", "finetune"):
            run.define_metric(f"{phase}/*", step_metric=f"{phase}/epoch")
        self.runs[trial] = run

    def epoch(self, trial: int, phase: str, epoch: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        points = {f"{phase}/{name}": value for name, value in values.items()}
        self.runs[trial].log(points | {f"{phase}/epoch": epoch})

    def end(self, row: Row) -> None:
        """Add metrics and architecture, and end the run."""
        run = self.runs.pop(row.trial)
        run.notes = description_of(row)
        run.summary.update(metrics_of(row) | {"status": row.status, "arch_id": row.arch_id})
        run.finish(exit_code=1 if row.status == "failed" else 0)

    def picture(self, name: str, file: Path) -> None:
        """Add a picture in a run of the study."""
        run = self._run("study", {})
        run.log({name: wandb.Image(str(file))})
        run.finish()

    def close(self) -> None:
        """End the runs of trials that have not ended."""
        for run in self.runs.values():
            run.finish(exit_code=1)

    def _run(self, name: str, params: dict[str, Any]) -> Any:
        """A new run."""
        return wandb.init(
            project=self.options.project or self.study,
            entity=self.options.entity,
            mode=self.options.mode,
            group=self.group,
            name=name,
            config=params,
            dir=str(self.folder),
            reinit="create_new",  # several trials run at a time
            settings=wandb.Settings(silent=True, console="off"),
        )

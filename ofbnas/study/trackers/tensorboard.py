"""TensorBoard: a folder of event files for each trial, written by tensorboardX, which Ray brings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.image
from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

from ofbnas.config.trackers import TensorBoardConfig
from ofbnas.study.trackers.tracker import Tracker, description_of, metrics_of
from ofbnas.table.columns import Row


class TensorBoard(Tracker):
    """Curves as `search/val_top1`, hyper-parameters and metrics in the tab HParams, and pictures."""

    def __init__(self, options: TensorBoardConfig, folder: Path) -> None:
        """Set up.

        Args:
            options: The tracker's.
            folder: The study's.
        """
        self.folder = folder / "tensorboard" if options.folder is None else Path(options.folder)
        self.writers: dict[int, SummaryWriter] = {}
        self.params: dict[int, Mapping[str, Any]] = {}

    def begin(self, trial: int, params: Mapping[str, Any]) -> None:
        """Begin the trial's files anew."""
        if trial in self.writers:
            self.writers.pop(trial).close()
        place = self._place(trial)
        for file in place.glob("events.out.tfevents.*"):  # of an earlier attempt
            file.unlink()
        self.writers[trial] = SummaryWriter(str(place))
        self.params[trial] = params

    def epoch(self, trial: int, phase: str, epoch: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        writer = self.writers[trial]
        for name, value in values.items():
            writer.add_scalar(f"{phase}/{name}", value, epoch)
        writer.flush()

    def end(self, row: Row) -> None:
        """Add hyper-parameters, metrics and architecture, and close the trial's files."""
        writer = self.writers.pop(row.trial)
        writer.add_text("trial", description_of(row))
        params = dict(self.params.pop(row.trial)) | {"status": row.status}
        metrics = metrics_of(row)
        # Not `add_hparams`, which opens a second file of the same name where it is the same second.
        for summary in hparams(params, metrics):
            writer.file_writer.add_summary(summary)
        for name, value in metrics.items():
            writer.add_scalar(name, value)
        writer.close()

    def picture(self, name: str, file: Path) -> None:
        """Add a picture to the study's own files."""
        with SummaryWriter(str(self.folder)) as writer:
            pixels = matplotlib.image.imread(file)  # [height, width, channels], 0 to 1
            writer.add_image(name, pixels, dataformats="HWC")

    def close(self) -> None:
        """Close the files of trials that have not ended."""
        for writer in self.writers.values():
            writer.close()

    def _place(self, trial: int) -> Path:
        """The folder of a trial."""
        return self.folder / f"trial-{trial:05d}"

"""optuna-dashboard: a note for each trial, and pictures of the study, in Optuna's own storage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna_dashboard import save_note

from ofbnas.files import durable
from ofbnas.study.trackers.tracker import Tracker, description_of, metrics_of
from ofbnas.study.tuning.optuna_private import resumed_trial
from ofbnas.table.columns import Row

ARTIFACTS = "artifacts"  # in the study's folder: optuna-dashboard --artifact-dir FOLDER


class OptunaDashboard(Tracker):
    """Parameters, objectives and rungs are in the storage anyway; this adds what is not."""

    def __init__(self, study: optuna.Study, folder: Path) -> None:
        """Set up.

        Args:
            study: Optuna's.
            folder: The study's.
        """
        self.study = study
        self.folder = folder / ARTIFACTS

    def begin(self, trial: int, params: Mapping[str, Any]) -> None:
        """Nothing: Optuna has it."""

    def epoch(self, trial: int, phase: str, epoch: int, values: Mapping[str, float]) -> None:
        """Nothing: a storage of many trials is no place for their curves."""

    def end(self, row: Row) -> None:
        """Write the trial's note."""
        lines = [f"- {name}: {value:.6g}" for name, value in metrics_of(row).items()]
        frozen = self.study.get_trials(deepcopy=False)[row.trial]
        note = "\n\n".join([description_of(row), "\n".join(lines)])
        save_note(resumed_trial(self.study, frozen), note)

    def picture(self, name: str, file: Path) -> None:
        """Add a picture to the study."""
        durable.make_folder(self.folder)
        store = FileSystemArtifactStore(self.folder)
        upload_artifact(artifact_store=store, file_path=str(file), study_or_trial=self.study)

    def close(self) -> None:
        """Nothing is open."""

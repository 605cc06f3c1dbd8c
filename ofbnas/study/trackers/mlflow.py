"""MLflow: a run of the study, and a run of each trial below it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param, RunStatus
from mlflow.tracking import MlflowClient
from mlflow.utils.time import get_current_time_millis

from ofbnas.config.trackers import MlflowConfig
from ofbnas.study.trackers.tracker import Tracker, description_of, metrics_of
from ofbnas.table.columns import Row

STUDY = "ofbnas.study"  # tag of all runs of a study: an id of its folder
TRIAL = "ofbnas.trial"  # tag of a trial's run: its number
# Names that MLflow itself gives a meaning.
PARENT = "mlflow.parentRunId"
NOTE = "mlflow.note.content"


class Mlflow(Tracker):
    """Curves as `search/val_top1` by epoch; parameters, metrics and pictures."""

    def __init__(self, options: MlflowConfig, study: str, identity: str) -> None:
        """Find or make the experiment and the run of the study.

        Args:
            options: The tracker's.
            study: Name of the study.
            identity: Tells this study from others of its name.
        """
        self.client = MlflowClient(tracking_uri=options.uri)
        self.identity = identity
        name = options.experiment or study
        experiment = self.client.get_experiment_by_name(name)
        self.experiment = (
            self.client.create_experiment(name) if experiment is None else experiment.experiment_id
        )
        self.runs: dict[int, str] = {}  # the run of each trial that has not ended
        known = self._find("study")
        self.study_run = known[0] if known else self._create(study, {TRIAL: "study"})

    def begin(self, trial: int, params: Mapping[str, Any]) -> None:
        """Make the trial's run; that of an earlier attempt is deleted."""
        for run in self._find(str(trial)):
            self.client.delete_run(run)
        tags = {TRIAL: str(trial), PARENT: self.study_run}
        run = self._create(f"trial-{trial:05d}", tags)
        values = [Param(name, str(value)) for name, value in params.items()]
        self.client.log_batch(run, params=values)
        self.runs[trial] = run

    def epoch(self, trial: int, phase: str, epoch: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        now = get_current_time_millis()
        points = [Metric(f"{phase}/{name}", value, now, epoch) for name, value in values.items()]
        self.client.log_batch(self.runs[trial], metrics=points)

    def end(self, row: Row) -> None:
        """Add metrics and architecture, and end the run."""
        run = self.runs.pop(row.trial)
        now = get_current_time_millis()
        metrics = [Metric(name, value, now, 0) for name, value in metrics_of(row).items()]
        self.client.log_batch(run, metrics=metrics)
        self.client.set_tag(run, NOTE, description_of(row))
        self.client.set_tag(run, "status", row.status)
        ended = RunStatus.FAILED if row.status == "failed" else RunStatus.FINISHED
        self.client.set_terminated(run, RunStatus.to_string(ended))

    def picture(self, name: str, file: Path) -> None:
        """Add a picture to the study's run."""
        self.client.log_artifact(self.study_run, str(file))

    def close(self) -> None:
        """End the study's run, and those of trials that have not ended."""
        for run in self.runs.values():
            self.client.set_terminated(run, RunStatus.to_string(RunStatus.KILLED))
        self.client.set_terminated(self.study_run)

    def _create(self, name: str, tags: Mapping[str, str]) -> str:
        """Make a run of this study; its id."""
        tags = {STUDY: self.identity, **tags}
        run = self.client.create_run(self.experiment, run_name=name, tags=tags)
        return str(run.info.run_id)

    def _find(self, trial: str) -> list[str]:
        """Ids of this study's runs of a trial, or of "study"."""
        condition = f"tags.`{STUDY}` = '{self.identity}' and tags.`{TRIAL}` = '{trial}'"
        runs = self.client.search_runs([self.experiment], condition)
        return [run.info.run_id for run in runs]

"""Where a study is mirrored to: TensorBoard, MLflow, Weights & Biases, optuna-dashboard."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, Discriminator, Tag, model_validator

from ofbnas.config.section import Section, repeated

TrackerName = Literal["tensorboard", "mlflow", "wandb", "optuna_dashboard"]
NAMES: tuple[TrackerName, ...] = get_args(TrackerName)


def _without_credentials(uri: str) -> str:
    """The address, unchanged; it is written into study.yaml, where no password belongs."""
    if "@" in urlsplit(uri).netloc:
        raise ValueError(
            "has a user or a password; give MLflow its environment variables "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead"
        )
    return uri


class TensorBoardConfig(Section):
    """Event files, which `tensorboard --logdir FOLDER` shows."""

    folder: str | None = None
    """Their folder, of this study alone; by default `tensorboard` in the study's folder."""


class MlflowConfig(Section):
    """Runs of MLflow: one of the study, and one of each trial below it."""

    uri: Annotated[str, AfterValidator(_without_credentials)] | None = None
    """Address of the tracking server, such as http://HOST:5000; by default MLflow's own,
    MLFLOW_TRACKING_URI. Credentials belong in MLflow's environment variables."""
    experiment: str | None = None
    """Name of the experiment; by default that of the study."""


class WandbConfig(Section):
    """Runs of Weights & Biases, one of each trial. Its key belongs in WANDB_API_KEY."""

    project: str | None = None
    """Name of the project; by default that of the study."""
    entity: str | None = None
    """User or team; by default the user's own."""
    mode: Literal["online", "offline"] = "online"
    """offline writes files into the study's folder, which `wandb sync` uploads."""


class OptunaDashboardConfig(Section):
    """Notes of trials, and pictures of the study, in the storage that optuna-dashboard shows."""


class TrackerConfig(Section):
    """One tracker and its options."""

    tensorboard: TensorBoardConfig | None = None
    """TensorBoard."""
    mlflow: MlflowConfig | None = None
    """MLflow."""
    wandb: WandbConfig | None = None
    """Weights & Biases."""
    optuna_dashboard: OptunaDashboardConfig | None = None
    """optuna-dashboard."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [name for name, options in self if options is not None]
        if len(given) != 1:
            names = " and ".join(given) or "none"
            raise ValueError(f"names {names}; give each tracker an item of its own")
        return self


def _kind(value: Any) -> str:
    return "name" if isinstance(value, str) else "options"


Tracker = Annotated[
    Annotated[TrackerName, Tag("name")] | Annotated[TrackerConfig, Tag("options")],
    Discriminator(_kind),
]
Options = TensorBoardConfig | MlflowConfig | WandbConfig | OptunaDashboardConfig


def options_of(trackers: list[Tracker]) -> dict[TrackerName, Options]:
    """The trackers of a list by name, with their options.

    Raises:
        ValueError: One is there twice.
    """
    found: list[tuple[TrackerName, Options]] = []
    for tracker in trackers:
        if isinstance(tracker, str):
            tracker = TrackerConfig.model_validate({tracker: {}})
        for name in NAMES:
            options = getattr(tracker, name)
            if options is not None:
                found.append((name, options))
    twice = repeated(name for name, _ in found)
    if twice:
        raise ValueError(f"trackers has {twice[0]} twice")
    return dict(found)

"""Every number that a run depends on, read from YAML and checked before the run starts."""

from ofbnas.config.latency import LatencyConfig, TimedOnConfig
from ofbnas.config.model import (
    DataConfig,
    ImageDataConfig,
    ModelConfig,
    OwnDataConfig,
    SmallDataConfig,
)
from ofbnas.config.ranges import ChoiceParam, FloatParam, IntParam
from ofbnas.config.search import BudgetConfig, SearchConfig
from ofbnas.config.section import Length, RampConfig, Span
from ofbnas.config.study import RangeConfig, SpaceConfig, StudyConfig
from ofbnas.config.sweep import SweepConfig
from ofbnas.config.training import (
    AugmentConfig,
    DistillConfig,
    FinetuneConfig,
    RateConfig,
    TrainConfig,
)

__all__ = [
    "AugmentConfig",
    "BudgetConfig",
    "ChoiceParam",
    "DataConfig",
    "DistillConfig",
    "FinetuneConfig",
    "FloatParam",
    "ImageDataConfig",
    "IntParam",
    "LatencyConfig",
    "Length",
    "ModelConfig",
    "OwnDataConfig",
    "RampConfig",
    "RangeConfig",
    "RateConfig",
    "SearchConfig",
    "SmallDataConfig",
    "SpaceConfig",
    "Span",
    "StudyConfig",
    "SweepConfig",
    "TimedOnConfig",
    "TrainConfig",
]

"""Ray Tune, imported after Ray's settings; apart from Ray, which can be started before Tune is imported."""

from ofbnas.study.cluster import ray_import  # noqa: F401, I001  # sets what Tune reads at import

from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule
from ray.tune.search.optuna import OptunaSearch

__all__ = ["ASHAScheduler", "FIFOScheduler", "MedianStoppingRule", "OptunaSearch", "tune"]

"""Ray, imported after the settings it reads only once, at import."""

import os
import secrets
import sys

SETTINGS = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # no banner
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the table and the history are the log
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # progress reports hold no objectives
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # the row of a failed trial has the reason
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}

# A cluster has a token of its own or none; a Ray of this process' own gets one that is written nowhere.
OWN_TOKEN = "ray" not in sys.modules and not {"RAY_ADDRESS", "RAY_AUTH_MODE"} & os.environ.keys()

if "ray" not in sys.modules:
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if OWN_TOKEN:
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))

import ray  # noqa: E402
from ray import tune  # noqa: E402
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule  # noqa: E402
from ray.tune.search.optuna import OptunaSearch  # noqa: E402

__all__ = ["OWN_TOKEN", "ASHAScheduler", "FIFOScheduler", "MedianStoppingRule", "OptunaSearch", "ray", "tune"]

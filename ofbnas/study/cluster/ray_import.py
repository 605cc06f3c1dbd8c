"""Ray, imported after setting the environment variables that it reads once, at import."""

import os
import secrets
import sys

SETTINGS = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # no banner
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the table and the histories are the log
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # progress reports do not hold the objectives
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # the row of a failed trial states the reason
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}

# An existing cluster has its own token, or none. A Ray instance that this process starts gets a
# random token, which is written nowhere, so that no other user of the machine can run code in it.
OWN_TOKEN = "ray" not in sys.modules and not {"RAY_ADDRESS", "RAY_AUTH_MODE"} & os.environ.keys()

if "ray" not in sys.modules:
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if OWN_TOKEN:
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))

import ray  # noqa: E402

__all__ = ["OWN_TOKEN", "ray"]

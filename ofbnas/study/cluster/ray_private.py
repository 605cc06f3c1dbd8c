"""All that ofbnas takes from Ray beyond public interfaces.

`tests/study/test_early_start.py` pins it: if a new version changes it, that test fails and only
this file has to follow.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from unittest.mock import patch

import psutil

from ofbnas.study.cluster.ray_import import ray

# What Ray says, in an error of no type of its own, when its processes did not start in time.
TOO_SLOW = "timed out during startup"


def end_failed_start(begun: float) -> None:
    """End the processes of a start of Ray that failed; it would leave them until this process ends.

    Args:
        begun: When it began, in seconds since the epoch.
    """
    ray.shutdown()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            is_rays = any("/ray/" in word for word in process.cmdline())
            if is_rays and process.create_time() >= begun - 1:
                process.kill()


@contextmanager
def in_started_processes() -> Iterator[None]:
    """Let Tune run trials in processes that this machine's Ray has started already.

    Ray starts a process for each CPU, without a runtime environment. Tune asks for processes with
    some variables in theirs, so Ray would start all anew. Trials need none of these variables: they
    inherit those of this process.
    """
    from ray.tune.execution import class_cache  # late, as a start of Ray does without Tune

    with (
        patch.object(class_cache, "DEFAULT_ENV_VARS", {}),
        patch.object(class_cache, "ENV_VARS_TO_PROPAGATE", set()),
    ):
        yield

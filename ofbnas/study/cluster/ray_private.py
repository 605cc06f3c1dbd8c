"""All that ofbnas takes from Ray beyond public interfaces.

`tests/study/test_early_start.py` pins it: if a new version changes it, that test fails and only
this file has to follow.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from ray.tune.execution import class_cache


@contextmanager
def in_started_processes() -> Iterator[None]:
    """Let Tune run trials in processes that this machine's Ray has started already.

    Ray starts a process for each CPU, without a runtime environment. Tune asks for processes with
    some variables in theirs, so Ray would start all anew. Trials need none of these variables: they
    inherit those of this process.
    """
    with (
        patch.object(class_cache, "DEFAULT_ENV_VARS", {}),
        patch.object(class_cache, "ENV_VARS_TO_PROPAGATE", set()),
    ):
        yield

"""How the process of a short command begins and ends, which takes a third of its processor time.

Imports create about a million objects that stay alive. While it imports, Python searches them again
and again for unreachable cycles, and at the end it destroys them one by one.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from typing import NoReturn

DEFAULT_THRESHOLDS = gc.get_threshold()
# Garbage is still collected: validating a long table creates many models, one after the other.
HIGH_THRESHOLDS = (100_000, *DEFAULT_THRESHOLDS[1:])


def collect_seldom() -> None:
    """Collect garbage seldom, and let `leave` end the process at once."""
    gc.set_threshold(*HIGH_THRESHOLDS)


def collect_as_usual() -> None:
    """Collect garbage as often as Python does by default, and let `leave` end the process normally.

    Commands that train or serve call it after their imports: garbage may hold a device's memory.
    """
    gc.set_threshold(*DEFAULT_THRESHOLDS)


def leave(code: int) -> NoReturn:
    """End the process, without destroying its objects if it collects garbage seldom."""
    if gc.get_threshold() != HIGH_THRESHOLDS:
        sys.exit(code)
    # os._exit calls no exit functions and flushes nothing, so both are done here.
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # the reader is gone, such as `head` after enough lines
        code = code or 1
    os._exit(code)

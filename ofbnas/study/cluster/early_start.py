"""Ray, started before anything else: while it waits for its processes, this one imports what a study needs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from threading import Thread

from ofbnas.config import StudyConfig
from ofbnas.study.cluster.connection import interrupts, start
from ofbnas.study.cluster.ray_import import ray
from ofbnas.table.layout import FOLDER, trial_files

PRELOADED = "ofbnas.study.cluster.preload"
# Torch and timm, Optuna and SQLAlchemy; no part of Ray, which this process may be importing itself at the same time.
SLOW_IMPORTS = ("ofbnas.study.parent", "ofbnas.study.tuning.storage")


@contextmanager
def early_start(config: StudyConfig, folder: Path, address: str | None) -> Iterator[None]:
    """Start Ray for a study that is about to run, and import what takes longest meanwhile.

    `connected` then finds Ray started, and ends it; where the study is refused before, this does.

    Args:
        config: The study.
        folder: The study's folder.
        address: Of a cluster to join, which needs no start.
    """
    is_finished = len(trial_files(folder / FOLDER)) >= config.sweep.n_trials
    has_imported = "torch" in sys.modules
    if address is not None or is_finished or has_imported:
        yield
        return

    # Ray is started by the main thread: only there can it handle signals, and Linux ends Ray's processes together with
    # the thread that started them.
    imports = Thread(target=_import_slow, daemon=True)
    imports.start()
    try:
        start([PRELOADED] if _use_all_processes(config) else [])
        with interrupts():
            imports.join()
            yield
    finally:
        ray.shutdown()


def _import_slow() -> None:
    """Import ahead; what fails is imported again by those who need it, and fails there."""
    for name in SLOW_IMPORTS:
        with suppress(Exception):
            import_module(name)


def _use_all_processes(config: StudyConfig) -> bool:
    """Whether the processes that Ray starts, one for each CPU, will all run trials, on CPUs.

    Those that would not run any are not worth the memory that torch takes. Those for trials on a GPU
    import torch after Ray has given them theirs.
    """
    workers = config.resources.workers_per_trial
    cpus, gpus = config.resources.per_worker()
    trials = min(config.sweep.n_trials, config.resources.max_concurrent or config.sweep.n_trials)
    return gpus == 0 and cpus <= 1 and trials * workers >= (os.cpu_count() or 1)

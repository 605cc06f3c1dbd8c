"""Runs a study, or what is left of it.

Optuna's storage and the table are its only state: a trial with a row is over. A trial that is
running according to Optuna but has no row is resumed under its old number and values. New trials
follow until there are `n_trials`.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import optuna
import torch

from ofbnas.config import StudyConfig
from ofbnas.config.study_file import dump_study
from ofbnas.errors import InputError, TransferError, causes, is_full
from ofbnas.files import durable
from ofbnas.study.cluster.connection import connected, interrupts
from ofbnas.study.cluster.disk import EarlyEnd
from ofbnas.study.cluster.node_checks import ready
from ofbnas.study.cluster.placement import placement
from ofbnas.study.cluster.ray_private import in_started_processes
from ofbnas.study.cluster.sampling import StudySearch, has_running
from ofbnas.study.cluster.shared_storage import LOG
from ofbnas.study.cluster.stopping import RungScheduler
from ofbnas.study.cluster.trial_events import TrialEvents, View
from ofbnas.study.cluster.tune_import import tune
from ofbnas.study.cluster.worker import REPORTS_PER_SECOND, log, log_to, trainable
from ofbnas.study.images import data_of
from ofbnas.study.parent import Parent, trained_parent
from ofbnas.study.plan import check_study
from ofbnas.study.provenance import write_settings
from ofbnas.study.trackers.mirror import Mirror, check_trackers
from ofbnas.study.tuning.extend import changes
from ofbnas.study.tuning.repair import repair
from ofbnas.study.tuning.samplers import sampler_of
from ofbnas.study.tuning.storage import mend, readable
from ofbnas.table import store
from ofbnas.training.evaluation import evaluate
from ofbnas.training.events import Callback, Phase
from ofbnas.training.pretrain import check_room

# A write may fail because the folder is just being removed, file by file: after this long,
# study.yaml is gone as well.
REMOVAL_SECONDS = 2.0


@dataclass(frozen=True)
class Outcome:
    """How a run of a study ended, in numbers of trials.

    Attributes:
        before: Those with a row when the run began.
        done: Those with a row at its end.
        failed: Those of them that failed.
        pruned: Those of them that were pruned.
        wanted: Those that the study asks for.
    """

    before: int
    done: int
    failed: int
    pruned: int
    wanted: int


def run_study(config: StudyConfig, folder: Path, view: View, address: str | None = None) -> Outcome:
    """Run a study, or resume it.

    Args:
        config: The study.
        folder: Its folder; created if necessary.
        view: Shows what happens.
        address: Of a running Ray cluster, "auto" or HOST:PORT; by default this process starts its
            own Ray.

    Raises:
        InputError: The settings of the study in the folder may not change like this, its storage
            cannot be used, another driver runs it, its values are out of reach, or the cluster
            cannot run it.
        DiskFullError: The disk is full; finished trials are kept.
        FolderLostError: The folder was removed during the run.
        TransferError: The shared storage can no longer be used; finished trials are kept.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with _lock(folder) if folder.is_dir() else nullcontext():
        repair(folder)

    # Everything that can be refused is refused before anything is spent.
    view.stage("settings and weights are checked")
    changes(config, folder)
    sampler_of(config.sweep, config.seed)
    check_trackers(config)
    parent = check_study(config)
    view.stage("images are read")
    data = data_of(config)

    durable.make_folder(folder)
    with _lock(folder), log_to(folder / LOG), readable(config):
        return _run_locked(config, folder, parent, data, view, address)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Keep other drivers out of a study's folder.

    Raises:
        InputError: Another driver runs the study.
    """
    try:
        with filelock.FileLock(str(folder / ".lock"), timeout=0):
            yield
    except filelock.Timeout:
        raise InputError(
            f"{folder}: another process runs this study; wait for it, or give --output"
        ) from None


def _run_locked(
    config: StudyConfig, folder: Path, untrained: Parent, data: Any, view: View, address: str | None
) -> Outcome:
    """Run the trials that are missing, while no other driver can."""
    mend(config, folder)
    before = store.num_rows(folder)
    wanted = config.sweep.n_trials
    changed = changes(config, folder)
    if before >= wanted and not changed and not has_running(config, folder):
        return _outcome(folder, before, wanted)

    search = StudySearch(config, folder)  # brings Optuna's study and the table to the same state
    end = EarlyEnd(folder, search.storage, config.resources.disk_gb)
    for change in changed:
        log.info("%s: %s", folder, change)
    write_settings(config, folder)
    before = store.num_rows(folder)
    if before >= wanted:
        return _finished(search, before, wanted)

    end.look()
    end.check(before, wanted)
    check_room(folder, untrained.model, "give --output a folder on another disk")
    with connected(address), interrupts(), _tune_folder(folder) as tune_folder:
        mirror = Mirror(config, folder, search.study, view.warn)
        tuner = _tuner(
            config, search, end, data, view, mirror, tune_folder, joined=address is not None
        )
        with in_started_processes() if address is None else nullcontext():
            _fit(tuner, end, folder)
        mirror.close()
    end.is_gone()
    end.check(store.num_rows(folder), wanted)
    return _finished(search, before, wanted)


def _tuner(
    config: StudyConfig,
    search: StudySearch,
    end: EarlyEnd,
    data: Any,
    view: View,
    mirror: Mirror,
    tune_folder: str,
    *,
    joined: bool,
) -> Any:
    """Ray Tune, set up to run the missing trials; the parent is trained first if necessary.

    Args:
        config: The study.
        search: Hands out trials.
        end: Ends the study early where the disk is full or the storage is lost.
        data: The study's images.
        view: Shows what happens.
        mirror: Passes it on to trackers.
        tune_folder: For Tune's own files.
        joined: Whether this process joined a cluster that was running.
    """
    folder = search.folder
    before = store.num_rows(folder)
    wanted = config.sweep.n_trials
    storage = None if search.storage is None else search.storage.address
    fitting = ready(config, folder, storage, joined=joined)
    max_concurrent = config.resources.max_concurrent or fitting
    parent = _parent(config, data, view)
    view.begin(before, wanted)
    function = tune.with_parameters(
        trainable,
        study=dump_study(config),
        folder=str(folder.resolve()),
        storage=storage,
        parent=parent.model.state_dict(),
        report_every=max(1.0, max_concurrent / REPORTS_PER_SECOND),
    )
    return tune.Tuner(
        tune.with_resources(function, placement(config)),
        tune_config=tune.TuneConfig(
            search_alg=search,
            scheduler=_scheduler(config, search, parent),
            num_samples=wanted - before,
            max_concurrent_trials=max_concurrent,
            # A process of several workers belongs to the placement group of one trial.
            reuse_actors=config.resources.workers_per_trial == 1,
        ),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=tune_folder,  # nothing is restored from it, so no other node has to see it
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=config.resources.max_failures),
            stop=end,
            callbacks=[TrialEvents(config, search, end, view, mirror)],
        ),
    )


def _fit(tuner: Any, end: EarlyEnd, folder: Path) -> None:
    """Run the trials; a reason to end the study is recorded in `end`, which raises it later."""
    try:
        tuner.fit()
    except Exception as error:
        time.sleep(REMOVAL_SECONDS)
        lost_storage = [cause for cause in causes(error) if isinstance(cause, TransferError)]
        if end.is_gone():
            log.info("the study ends with %r", error)
        elif is_full(error):
            end.say_full(folder)
        elif lost_storage:
            end.say(lost_storage[0])
        else:
            raise


@contextmanager
def _tune_folder(folder: Path) -> Iterator[str]:
    """A temporary folder for Tune's own files; those that killed drivers left are removed."""
    prefix = f"ofbnas-tune-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]}-"
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix) as made:
        yield made


def _finished(search: StudySearch, before: int, wanted: int) -> Outcome:
    """How a run ended; a study that is finished leaves nothing in the shared storage."""
    outcome = _outcome(search.folder, before, wanted)
    if search.storage is not None and outcome.done >= wanted:
        search.storage.remove_all()
    return outcome


def _parent(config: StudyConfig, data: Any, view: View) -> Parent:
    """The trained parent, on the CPU."""
    data = data.to(_device())
    view.stage("the parent is loaded")
    parent = trained_parent(config, data, [_ParentEpochs(view)])
    view.stage("the parent is measured on the test images")
    accuracy = evaluate(parent.model.to(data.device), data.test)
    parent.model.cpu()
    log.info("parent %s: top-1 %.2f %% on the test split", config.model.name, accuracy.top1)
    return parent


class _ParentEpochs(Callback):
    """Shows the epochs of the parent's training."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.record: Mapping[str, Any] = {}

    def on_record(self, record: Mapping[str, Any]) -> None:
        """Keep what was measured of an epoch."""
        self.record = record

    def on_epoch(self, phase: Phase, epoch: int, epochs: int, losses: Mapping[str, float]) -> None:
        """Show an epoch."""
        self.view.parent(epoch, epochs, self.record)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _scheduler(config: StudyConfig, search: StudySearch, parent: Parent) -> RungScheduler | None:
    """What stops trials early; None where nothing does."""
    if config.sweep.early_stopping is None:
        return None
    return RungScheduler(config, search, parent.costs())


def _outcome(folder: Path, before: int, wanted: int) -> Outcome:
    """How a run ended, from the table."""
    status = store.read_table(folder, columns=["status"])["status"]
    failed = int((status == "failed").sum())
    pruned = int((status == "pruned").sum())
    return Outcome(before, len(status), failed, pruned, wanted)

"""Running a study, or what is left of it.

Optuna's storage and the table are its only state: a trial with a row is over, a trial that Optuna has as running but
that has no row is run again under its old number and values, and new ones are asked for until there are `n_trials`.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import optuna
import torch

from ofbnas import table
from ofbnas.config import StudyConfig
from ofbnas.cost import cost_of, sizes_of
from ofbnas.errors import InputError, TransferError, causes
from ofbnas.ledger.extend import changes
from ofbnas.ledger.storage import mend, readable
from ofbnas.parent import Parent, data_of, trained_parent, untrained_parent
from ofbnas.plan import check_budgets
from ofbnas.study_file import dump_study
from ofbnas.sweep.cluster import connected, placement, ready
from ofbnas.sweep.disk import EarlyEnd, is_full
from ofbnas.sweep.ray_quietly import tune
from ofbnas.sweep.sampling import StudySearch, has_running
from ofbnas.sweep.shared import LOG
from ofbnas.sweep.stopping import RungScheduler
from ofbnas.sweep.worker import REPORTS_PER_SECOND, Tell, View, log, log_to, trainable
from ofbnas.training import evaluate
from ofbnas.trial import versions


@dataclass(frozen=True)
class Outcome:
    """How a run of a study ended: trials with a row, before and after it, failed and pruned ones, and trials wanted."""

    before: int
    done: int
    failed: int
    pruned: int
    wanted: int


def run_study(config: StudyConfig, folder: Path, view: View, address: str | None = None) -> Outcome:
    """Run a study, or what is left of it.

    Args:
        config: The study.
        folder: Its folder; made if need be.
        view: Told what happens.
        address: Of a running Ray cluster, "auto" or HOST:PORT; by default a Ray of this process' own.

    Raises:
        InputError: The folder's study may not change so, its storage cannot be used, another driver runs it, its
            values are out of reach, or the cluster cannot run it.
        DiskFullError: There is no room for more; what is done stays.
        TransferError: The shared storage cannot be used any more; what is done stays.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    changes(config, folder)  # refused before anything is spent
    _check_reach(config)
    data = data_of(config)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(str(folder / ".lock"), timeout=0), log_to(folder / LOG), readable(config):
            return _run_locked(config, folder, data, view, address)
    except filelock.Timeout:
        raise InputError(f"{folder}: another process runs this study; wait for it, or give --output") from None


def _run_locked(config: StudyConfig, folder: Path, data: Any, view: View, address: str | None) -> Outcome:
    mend(config, folder)
    before, wanted = table.num_rows(folder), config.sweep.n_trials
    changed = changes(config, folder)
    if before >= wanted and not changed and not has_running(config, folder):
        return _outcome(folder, before, wanted)
    search = StudySearch(config, folder)
    end = EarlyEnd(folder, search.storage, config.resources.disk_gb)
    for change in changed:
        log.info("%s: %s", folder, change)
    beside = folder / "study.yaml.writing"
    beside.write_text(_header() + dump_study(config), encoding="utf-8")
    beside.replace(folder / "study.yaml")
    if (before := table.num_rows(folder)) >= wanted:
        return _ended(search, before, wanted)
    end.look()
    end.check(before, wanted)
    with connected(address), _interrupts():
        storage = None if search.storage is None else search.storage.address
        fits = ready(config, folder, storage, joined=address is not None)
        at_a_time = config.resources.max_concurrent or fits
        parent = _parent(config, data, view)
        view.begin(before, wanted)
        function = tune.with_parameters(
            trainable,
            study=dump_study(config),
            folder=str(folder.resolve()),
            storage=storage,
            parent=parent.model.state_dict(),
            report_every=max(1.0, at_a_time / REPORTS_PER_SECOND),
        )
        with tempfile.TemporaryDirectory(prefix="ofbnas-tune-") as tunes:
            tuner = tune.Tuner(
                tune.with_resources(function, placement(config)),
                tune_config=tune.TuneConfig(
                    search_alg=search,
                    scheduler=_scheduler(config, search, parent),
                    num_samples=wanted - before,
                    max_concurrent_trials=at_a_time,
                    reuse_actors=config.resources.workers_per_trial == 1,
                ),
                run_config=tune.RunConfig(
                    name="ray",
                    storage_path=tunes,  # nothing is restored from it, so no node but this one has to see it
                    verbose=0,
                    failure_config=tune.FailureConfig(max_failures=config.resources.max_failures),
                    stop=end,
                    callbacks=[Tell(config, search, end, view)],
                ),
            )
            try:
                tuner.fit()
            except Exception as error:
                if is_full(error):
                    end.say_full(folder)
                elif lost := next((cause for cause in causes(error) if isinstance(cause, TransferError)), None):
                    end.say(lost)
                else:
                    raise
    end.check(table.num_rows(folder), wanted)
    return _ended(search, before, wanted)


def _ended(search: StudySearch, before: int, wanted: int) -> Outcome:
    """How a run ended; a study that is finished leaves nothing in the shared storage."""
    outcome = _outcome(search.folder, before, wanted)
    if search.storage is not None and outcome.done >= wanted:
        search.storage.drop_all()
    return outcome


def _parent(config: StudyConfig, data: Any, view: View) -> Parent:
    """The trained parent, on the CPU."""
    epochs, data = config.pretrain.epochs if config.pretrain else 0, data.to(_device())
    parent = trained_parent(config, data, on_epoch=lambda epoch, _: view.parent(epoch, epochs))
    accuracy = evaluate(parent.model.to(data.device), data.test)
    parent.model.cpu()
    log.info("parent %s: top-1 %.2f %% on the test split", config.model.name, accuracy.top1)
    return parent


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _scheduler(config: StudyConfig, search: StudySearch, parent: Parent) -> RungScheduler | None:
    """What stops trials early; None where nothing does."""
    if config.sweep.early_stopping is None:
        return None
    sizes = sizes_of(parent.axes)
    macs, params = (cost_of(parent.model, parent.axes, metric).of(sizes) for metric in ("macs", "params"))
    return RungScheduler(config, search, {"gmacs": macs / 1e9, "params": params})


def _outcome(folder: Path, before: int, wanted: int) -> Outcome:
    status = table.read_table(folder)["status"]
    failed, pruned = (int((status == ending).sum()) for ending in ("failed", "pruned"))
    return Outcome(before, len(status), failed, pruned, wanted)


def _check_reach(config: StudyConfig) -> None:
    """Check that parent and teachers have their weights, and that every budget the sweep may ask for can be met."""
    models = {"model": config.model}
    for section in ("search", "finetune"):
        distill = getattr(getattr(config, section), "distill", None)
        if distill is not None and distill.teacher is not None:
            models[f"{section}.distill.teacher"] = distill.teacher
    for name, model in models.items():
        if model.checkpoint is not None and not model.checkpoint.is_file():
            raise InputError(f"{model.checkpoint}: no such file; {name}.checkpoint must name the model's weights")
    parent = untrained_parent(config)
    check_budgets(config, parent.model, parent.axes)


@contextmanager
def _interrupts() -> Iterator[None]:
    """SIGTERM ends the run as Ctrl-C does, which Tune answers by stopping its trials."""

    def interrupt(number: int, frame: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _header() -> str:
    """Comment at the head of a resolved study."""
    found = ", ".join(f"{name} {number}" for name, number in versions().items())
    return f"# The study as it was run, by {found}.\n"

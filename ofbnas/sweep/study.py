"""Running a study, or what is left of it.

The journal and the table are its only state: a trial with a row is over, a trial that Optuna has as running but that
has no row is run again under its old number and values, and new ones are asked for until there are `n_trials`.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
from collections.abc import Iterator, Mapping
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
from ofbnas.errors import InputError
from ofbnas.parent import Parent, data_of, trained_parent, untrained_parent
from ofbnas.plan import check_budgets
from ofbnas.study_file import dump_study, load_study
from ofbnas.sweep.ray_quietly import ray, tune
from ofbnas.sweep.sampling import StudySearch, has_running
from ofbnas.sweep.stopping import RungScheduler
from ofbnas.sweep.worker import Tell, View, log, log_to, trainable
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


def run_study(config: StudyConfig, folder: Path, view: View) -> Outcome:
    """Run a study, or what is left of it.

    Args:
        config: The study.
        folder: Its folder; made if need be.
        view: Told what happens.

    Raises:
        InputError: The folder holds another study, another driver runs it, or its values are out of reach.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    _check_folder(config, folder)
    _check_reach(config)
    data = data_of(config).to("cuda" if torch.cuda.is_available() else "cpu")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(str(folder / ".lock"), timeout=0), log_to(folder / "study.log"):
            return _run_locked(config, folder, data, view)
    except filelock.Timeout:
        raise InputError(f"{folder}: another process runs this study; wait for it, or give --output") from None


def _run_locked(config: StudyConfig, folder: Path, data: Any, view: View) -> Outcome:
    before, wanted = table.num_rows(folder), config.sweep.n_trials
    if before >= wanted and not has_running(config, folder):
        return _outcome(folder, before, wanted)
    search = StudySearch(config, folder)
    if (before := table.num_rows(folder)) >= wanted:
        return _outcome(folder, before, wanted)
    (folder / "study.yaml").write_text(_header() + dump_study(config), encoding="utf-8")
    epochs = config.pretrain.epochs if config.pretrain else 0
    parent = trained_parent(config, data, on_epoch=lambda epoch, _: view.parent(epoch, epochs))
    accuracy = evaluate(parent.model.to(data.device), data.test)
    parent.model.cpu()
    log.info("parent %s: top-1 %.2f %% on the test split", config.model.name, accuracy.top1)
    view.begin(before, wanted)
    resources = config.resources
    with _ray(), _interrupts():
        function = tune.with_parameters(
            trainable,
            study=dump_study(config),
            folder=str(folder.resolve()),
            parent=parent.model.state_dict(),
        )
        tuner = tune.Tuner(
            tune.with_resources(function, {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial}),
            tune_config=tune.TuneConfig(
                search_alg=search,
                scheduler=_scheduler(config, search, parent),
                num_samples=wanted - before,
                max_concurrent_trials=resources.max_concurrent or _fitting(config),
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="ray",
                storage_path=str((folder / ".tune").resolve()),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=resources.max_failures),
                callbacks=[Tell(config, folder, view)],
            ),
        )
        tuner.fit()
    shutil.rmtree(folder / ".tune", ignore_errors=True)
    return _outcome(folder, before, wanted)


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


def _check_folder(config: StudyConfig, folder: Path) -> None:
    """Refuse to continue a folder with another study than the one it holds."""
    file = folder / "study.yaml"
    if not file.is_file():
        return
    held, asked = (study.model_dump(mode="json") for study in (load_study(file), config))
    held["sweep"]["n_trials"] = asked["sweep"]["n_trials"]
    held["resources"] = asked["resources"]
    was, now = _leaves(held), _leaves(asked)
    if differing := [path for path in was | now if was.get(path) != now.get(path)]:
        path = differing[0]
        raise InputError(
            f"{folder}: holds a study with {'.'.join(path)} {was.get(path)}, asked for was {now.get(path)}: give "
            "--output a new folder, or run the study as it is"
        )


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


def _fitting(config: StudyConfig) -> int:
    """Trials that fit on the cluster at a time."""
    have, resources = ray.cluster_resources(), config.resources
    fits = have.get("CPU", 0) / resources.cpus_per_trial
    if resources.gpus_per_trial:
        fits = min(fits, have.get("GPU", 0) / resources.gpus_per_trial)
    if fits < 1:
        raise InputError(
            f"a trial needs {resources.cpus_per_trial:g} CPUs and {resources.gpus_per_trial:g} GPUs, Ray has "
            f"{have.get('CPU', 0):g} and {have.get('GPU', 0):g}: lower resources.cpus_per_trial or gpus_per_trial"
        )
    return int(fits)


@contextmanager
def _ray() -> Iterator[None]:
    """A Ray of this process' own, quiet."""
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    ray.init(
        address="local",
        num_cpus=os.cpu_count(),
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.CRITICAL,
        configure_logging=True,
    )
    try:
        yield
    finally:
        ray.shutdown()


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


def _leaves(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """All values in a tree of mappings by their path; a key may itself hold dots."""
    leaves: dict[tuple[str, ...], Any] = {}
    for key, value in tree.items():
        leaves |= _leaves(value, (*path, key)) if isinstance(value, Mapping) and value else {(*path, key): value}
    return leaves

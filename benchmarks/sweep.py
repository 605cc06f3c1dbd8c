"""What a study costs in addition to its searches, and where a large one would saturate.

    python benchmarks/sweep.py                   all of it, about ten minutes on two cores
    python benchmarks/sweep.py overhead rates    some of it
    python benchmarks/sweep.py nodes --trials 200

overhead: seconds per trial that a study adds to a search alone, one trial at a time, with reused
          worker processes.
use:      share of two workers' time that is spent in trials, two at a time.
nodes:    trials per second on two nodes with one CPU each, relative to one such node, in studies of
          `--trials` trials; the share of a CPU that the driver takes, and how long the first row
          takes. The nodes are those of the tests: processes of this machine, which the driver shares
          with them, in networks of their own where that is allowed (root on Linux). The machine's
          limit is measured too: searches without a study, in two processes relative to one.
rates:    what the driver, Optuna's storage and the table can do alone, with growing numbers of
          trials.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

# torch and Ray read these at import.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(16))

import optuna
import torch

from ofbnas.config import StudyConfig
from ofbnas.study.cluster.ray_import import ray
from ofbnas.study.cluster.sampling import StudySearch, sampler_of
from ofbnas.study.cluster.trial_events import View
from ofbnas.study.cluster.tune_import import tune
from ofbnas.study.images import data_of
from ofbnas.study.parent import trained_parent
from ofbnas.study.run import run_study
from ofbnas.study.trial import base_row, run_trial
from ofbnas.study.tuning.points import draw
from ofbnas.table.store import next_trial, read_row, read_table, write_row

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from nodes import Cluster

EPOCHS = 6  # of each search
SHORT = 2  # of each search in studies on nodes
STUDY: dict[str, Any] = {
    "name": "benchmark",
    "model": {
        "name": "vit_tiny_patch16_224",
        "kwargs": {
            "img_size": 8,
            "patch_size": 2,
            "in_chans": 1,
            "embed_dim": 64,
            "depth": 4,
            "num_heads": 4,
        },
    },
    "data": {"name": "digits"},
    "pretrain": {"epochs": 2},
    "search": {
        "epochs": EPOCHS,
        "budget": {"gmacs_share": 0.5},
        "refine": {"candidates": 0},  # trials are short
        "compensation": {"images": 128},
    },
    "finetune": {"epochs": 2},
    "sweep": {
        "n_trials": 8,
        "params": {
            "search.budget.gmacs_share": {"low": 0.3, "high": 0.8},
            "search.lr": {"low": 1e-4, "high": 1e-2, "log": True},
            "search.one_hot_weight": {"low": 0.0, "high": 1.0},
        },
    },
}


class Stopwatch(View):
    """A view of a study that only records when its trials start and end."""

    def __init__(self) -> None:
        self.starts: dict[int, float] = {}
        self.ends: dict[int, float] = {}

    def started(self, trial: int) -> None:
        """A trial is given to a worker."""
        self.starts[trial] = time.monotonic()

    def ended(self, trial: int) -> None:
        """A trial has its row."""
        self.ends[trial] = time.monotonic()


def config_of(trials: int, concurrent: int, epochs: int = EPOCHS) -> StudyConfig:
    """The study with so many trials, of which so many run at a time, and epochs of each search."""
    quarters = {"low": 0.25, "step": 0.25}
    changes = {
        "search": STUDY["search"] | {"epochs": epochs},
        "sweep": STUDY["sweep"] | {"n_trials": trials, "sampler": "random"},
        "search_space": {"heads": quarters, "mlp": quarters},
        "resources": {"max_concurrent": concurrent},
    }
    return StudyConfig.model_validate(STUDY | changes)


def study(
    trials: int, concurrent: int, address: str | None = None, epochs: int = EPOCHS
) -> dict[str, float]:
    """Run a study and measure its trials.

    A trial's time counts from the end of the trial that its worker ran before, so the first trial
    of each worker, which also starts Ray and the worker, is left out.
    """
    view = Stopwatch()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "study"
        begun = time.monotonic()
        used = time.process_time()
        run_study(config_of(trials, concurrent, epochs), folder, view, address)
        driver_share = (time.process_time() - used) / (time.monotonic() - begun)
        rows = read_table(folder)
    assert (rows["status"] == "complete").all(), rows["reason"].tolist()

    order = sorted(view.starts, key=view.starts.__getitem__)
    ends = sorted(view.ends.values())
    later = order[concurrent:]
    # A worker is free when a trial ends: the n-th end lets the n-th of the later trials start.
    taken = sum(view.ends[trial] - free for trial, free in zip(later, ends, strict=False))
    inside = float(rows.set_index("trial")["seconds"][later].sum())
    return {
        "trials": len(later),
        "seconds_per_trial": taken / len(later),
        "inside_per_trial": inside / len(later),
        "use": inside / taken,
        "until_first_row": ends[0] - begun,
        "driver_share": driver_share,
    }


def seconds_alone(trials: int, epochs: int = EPOCHS) -> float:
    """Mean seconds of so many trials without a study, after a first one that warms up."""
    config = config_of(trials + 1, 1, epochs)
    data = data_of(config)
    weights = trained_parent(config, data).model.state_dict()
    sampler = optuna.create_study(sampler=sampler_of(config.sweep, config.seed))
    times = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for number in range(trials + 1):
            values = draw(sampler.ask(), config.sweep)
            start = time.monotonic()
            run_trial(config, values, number, folder, data, weights)
            times.append(time.monotonic() - start)
    return statistics.mean(times[1:])


def overhead() -> dict[str, float]:
    """What a study adds to its searches, one at a time."""
    bare = seconds_alone(8)
    in_study = study(9, 1)
    return {"bare": bare, **in_study, "overhead": in_study["seconds_per_trial"] - bare}


def use() -> dict[str, float]:
    """The share of two workers' time that is spent in trials."""
    return study(18, 2)


def nodes(trials: int = 40) -> dict[str, Any]:
    """Two nodes with one CPU each, relative to one of them alone.

    Half of the trials on one node are before those on two and half after, as the speed of a shared
    machine changes.
    """
    before = on_nodes(1, trials // 2)
    both = on_nodes(2, trials)
    after = on_nodes(1, trials // 2)
    one = statistics.mean([before["seconds_per_trial"], after["seconds_per_trial"]])
    two = both["seconds_per_trial"] / 2  # that many trials run at a time
    return {"two_against_one": one / two, "limit": two_processes_against_one()}


def on_nodes(number: int, trials: int) -> dict[str, Any]:
    """A study on so many nodes with one CPU each, and a head that runs no trials; it is printed."""
    cluster = Cluster({name: os.environ[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")})
    try:
        cluster.start()
        for node in range(1, number + 1):
            cluster.add(node)
        measured = study(trials, number, cluster.address, SHORT)
    finally:
        cluster.close()
    result = {"nodes": number, "own_networks": cluster.namespaces, **measured}
    print(json.dumps(result), flush=True)
    return result


def two_processes_against_one(rounds: int = 4) -> float:
    """Searches per second in two processes without a study, relative to one: the machine's limit.

    One and two take turns, as the speed of a shared machine changes.
    """
    alone = partial(seconds_alone, epochs=SHORT)
    one: list[float] = []
    both: list[float] = []
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        for _ in range(rounds):
            one += pool.map(alone, [6])
            both += pool.map(alone, [6, 6])
    return 2 * statistics.mean(one) / statistics.mean(both)


def per_second(run: Callable[[], object], seconds: float = 2.0) -> float:
    """How often per second something can be done."""
    count = 0
    start = time.perf_counter()
    passed = 0.0
    while passed < seconds:
        run()
        count += 1
        passed = time.perf_counter() - start
    return count / passed


def rates() -> dict[str, Any]:
    """What each part can do alone."""
    return {
        "driver": driver_rate(),
        "optuna": [optuna_rates(trials) for trials in (100, 1000, 3000)],
        "table": table_rates(),
    }


def driver_rate() -> dict[str, float]:
    """Results per second that Tune's loop processes, from eight trials that only report."""
    times: list[float] = []

    class ResultTimes(tune.Callback):
        # The list is not an attribute: Tune copies its callbacks.
        def on_trial_result(
            self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any
        ) -> None:
            times.append(time.monotonic())

    def report(config: dict[str, Any]) -> None:
        for _ in range(200):
            tune.report({"x": 1})

    ray.init(
        address="local", num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level=50
    )
    try:
        with tempfile.TemporaryDirectory() as folder:
            run_config = tune.RunConfig(storage_path=folder, verbose=0, callbacks=[ResultTimes()])
            tune_config = tune.TuneConfig(num_samples=8)
            tune.Tuner(report, tune_config=tune_config, run_config=run_config).fit()
    finally:
        ray.shutdown()

    # All trials report only in the middle: they start and end one after the other.
    fifth = len(times) // 5
    middle = times[fifth:-fifth]
    return {"results_per_second": (len(middle) - 1) / (middle[-1] - middle[0])}


def optuna_rates(trials: int) -> dict[str, float]:
    """Trials per second, asked for and reported, in a study that already has some; and opening it.

    The study is in a journal, and TPE is its sampler.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    changes = {
        "search_space": {"mlp": {"low": 0.25, "step": 0.25}},
        "sweep": STUDY["sweep"] | {"n_trials": 10_000},
    }
    config = StudyConfig.model_validate(STUDY | changes)
    generator = torch.Generator().manual_seed(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        search = StudySearch(config, folder)

        def ask_and_tell() -> None:
            trial = search.study.ask()
            draw(trial, config.sweep)
            search.study.tell(trial, torch.rand(2, generator=generator).tolist())

        # The earlier trials are drawn at random, which takes much less time than TPE.
        search.study.sampler = optuna.samplers.RandomSampler(seed=0)
        for _ in range(trials):
            ask_and_tell()
        search.study.sampler = sampler_of(config.sweep, 0)
        each = per_second(ask_and_tell)

        start = time.perf_counter()
        optuna.load_study(study_name="benchmark", storage=journal(folder))
        opening = time.perf_counter() - start
        size = (folder / "journal.log").stat().st_size
    return {
        "trials": trials,
        "asked_and_told_per_second": each,
        "seconds_to_open": opening,
        "journal_mb": size / 1e6,
    }


def journal(folder: Path) -> optuna.storages.BaseStorage:
    """The journal in a study's folder, opened again."""
    file = str(folder / "journal.log")
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(file))


def table_rates() -> dict[str, Any]:
    """Writing, finding and reading rows that are a file each, as trials write them."""
    config = config_of(1, 1)
    row = replace(base_row(config, {"search.lr": 0.1}, 0, "complete"), top1=90.0, gmacs=1.0)
    numbers = itertools.count()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)

        def write() -> None:
            write_row(folder, replace(row, trial=next(numbers)))

        result["rows_written_per_second"] = per_second(write)
        for rows in (1_000, 4_000):
            while next_trial(folder) < rows:
                write()
            start = time.perf_counter()
            read_table(folder)
            result[f"seconds_to_read_{rows}"] = time.perf_counter() - start
        result["rows_looked_up_per_second"] = per_second(lambda: read_row(folder, 1))
    return result


def main() -> None:
    """Run the parts that are given, and print a line of JSON for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "overhead": overhead,
        "use": use,
        "nodes": nodes,
        "rates": rates,
    }
    # argparse also checks the default of "*", an empty list, against the choices.
    parser.add_argument("parts", nargs="*", choices=[[], *parts], help="by default all")
    parser.add_argument("--trials", type=int, default=40, help="of the study on nodes")
    given = parser.parse_args()
    parts["nodes"] = partial(nodes, given.trials)
    for name in given.parts or parts:
        print(json.dumps({name: parts[name]()}), flush=True)


if __name__ == "__main__":
    main()

"""What a study costs beside its searches, and where a large one would saturate.

    python benchmarks/sweep.py                   all of it, about six minutes on two cores
    python benchmarks/sweep.py overhead rates    some of it

overhead: seconds per trial that a study adds to the bare search, one trial at a time, worker processes reused.
use:      share of two workers' time that trials run in, two at a time.
nodes:    trials per second on two nodes of one CPU against one node of two; the nodes are processes of this machine.
rates:    what the driver, Optuna's storage and the table manage alone, at growing numbers of trials.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(16))

import optuna
import torch

from ofbnas.config import StudyConfig
from ofbnas.ledger.points import draw
from ofbnas.parent import data_of, trained_parent
from ofbnas.sweep.ray_quietly import ray, tune
from ofbnas.sweep.sampling import StudySearch, sampler_of
from ofbnas.sweep.study import run_study
from ofbnas.table import next_trial, read_row, read_table, write_row
from ofbnas.trial import base_row, run_trial

STUDY: dict[str, Any] = {
    "name": "benchmark",
    "model": {
        "name": "vit_tiny_patch16_224",
        "kwargs": {"img_size": 8, "patch_size": 2, "in_chans": 1, "embed_dim": 64, "depth": 4, "num_heads": 4},
    },
    "data": {"name": "digits"},
    "pretrain": {"epochs": 2},
    "search": {"epochs": 6, "budget": {"gmacs_share": 0.5}},
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


class Watch:
    """A view that keeps the times of what happens."""

    def __init__(self) -> None:
        self.starts: dict[int, float] = {}
        self.ends: dict[int, float] = {}

    def parent(self, epoch: int, epochs: int) -> None:
        """Of no interest."""

    def begin(self, done: int, wanted: int) -> None:
        """Of no interest."""

    def started(self, trial: int) -> None:
        """A trial is given to a worker."""
        self.starts[trial] = time.monotonic()

    def progress(self, trial: int, phase: str, epoch: int, epochs: int) -> None:
        """Of no interest."""

    def ended(self, trial: int) -> None:
        """A trial has its row."""
        self.ends[trial] = time.monotonic()


def config_of(trials: int, at_a_time: int) -> StudyConfig:
    """The study with so many trials."""
    return StudyConfig.model_validate(
        STUDY
        | {"sweep": STUDY["sweep"] | {"n_trials": trials, "sampler": "random"}}
        | {"search_space": {"heads": {"low": 0.25, "step": 0.25}, "mlp": {"low": 0.25, "step": 0.25}}}
        | {"resources": {"max_concurrent": at_a_time}}
    )


def study(trials: int, at_a_time: int, address: str | None = None) -> dict[str, float]:
    """Run a study; each trial's time counts from the end of the one before it in its place, so the first do not."""
    watch = Watch()
    with tempfile.TemporaryDirectory() as place:
        begun = time.monotonic()
        run_study(config_of(trials, at_a_time), Path(place) / "study", watch, address)
        rows = read_table(Path(place) / "study")
    assert (rows["status"] == "complete").all(), rows["reason"].tolist()
    order, ends = sorted(watch.starts, key=watch.starts.__getitem__), sorted(watch.ends.values())
    later = order[at_a_time:]
    taken = sum(watch.ends[trial] - free for trial, free in zip(later, ends, strict=False))
    inside = float(rows.set_index("trial")["seconds"][later].sum())
    return {
        "trials": len(later),
        "seconds_per_trial": taken / len(later),
        "inside_per_trial": inside / len(later),
        "use": inside / taken,
        "until_first_row": ends[0] - begun,
    }


def overhead() -> dict[str, float]:
    """What a study adds to its searches, one at a time."""
    trials = 9
    config = config_of(trials, 1)
    data = data_of(config)
    parent = trained_parent(config, data).model.state_dict()
    sampler = optuna.create_study(sampler=sampler_of(config.sweep, config.seed))
    taken = []
    with tempfile.TemporaryDirectory() as place:
        for number in range(trials):
            values = draw(sampler.ask(), config.sweep)
            start = time.monotonic()
            run_trial(config, values, number, Path(place) / "bare", data, parent, lambda *_: None)
            taken.append(time.monotonic() - start)
    bare = sum(taken[1:]) / (trials - 1)
    found = study(trials, 1)
    return {"bare": bare, **found, "overhead": found["seconds_per_trial"] - bare}


def use() -> dict[str, float]:
    """How much of two workers' time trials run in."""
    return study(18, 2)


def nodes() -> dict[str, Any]:
    """Two nodes of one CPU each against one of two."""
    found = {}
    for name, cpus in (("one node", [2]), ("two nodes", [1, 1])):
        with cluster(cpus) as address:
            found[name] = study(12, 2, address)
    ratio = found["one node"]["seconds_per_trial"] / found["two nodes"]["seconds_per_trial"]
    return found | {"two_against_one": ratio}


@contextmanager
def cluster(cpus: list[int]) -> Iterator[str]:
    """Ray nodes as processes of this machine, and a head that runs no trials."""
    ray_command = [str(Path(sys.executable).parent / "ray")]
    quiet: dict[str, Any] = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    start = [*ray_command, "start", "--disable-usage-stats"]
    subprocess.run([*start, "--head", "--port", "6399", "--num-cpus", "0", "--include-dashboard=false"], **quiet)
    try:
        for number in cpus:
            subprocess.run([*start, "--address", "127.0.0.1:6399", "--num-cpus", str(number)], **quiet)
        yield "127.0.0.1:6399"
    finally:
        subprocess.run([*ray_command, "stop", "--force"], **quiet)


def per_second(run: Callable[[], object], seconds: float = 2.0) -> float:
    """How often something can be done in a second."""
    count, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds:
        run()
        count += 1
    return count / passed


def rates() -> dict[str, Any]:
    """What each part manages alone."""
    return {"driver": driver_rate(), "optuna": [optuna_rates(n) for n in (100, 1000, 3000)], "table": table_rates()}


def driver_rate() -> dict[str, float]:
    """Results of trials that Tune's loop takes in a second, from eight trials that do nothing else than report."""
    reports = 200

    def report(config: dict[str, Any]) -> None:
        for _ in range(reports):
            tune.report({"x": 1})

    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level=50)
    try:
        with tempfile.TemporaryDirectory() as place:
            times: list[float] = []

            class Times(tune.Callback):
                def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
                    times.append(time.monotonic())

            settings = tune.RunConfig(storage_path=place, verbose=0, callbacks=[Times()])
            tune.Tuner(report, tune_config=tune.TuneConfig(num_samples=8), run_config=settings).fit()
    finally:
        ray.shutdown()
    times = times[len(times) // 5 : -len(times) // 5]  # while all report
    return {"results_per_second": (len(times) - 1) / (times[-1] - times[0])}


def optuna_rates(trials: int) -> dict[str, float]:
    """Asking for and telling of trials in a study that has some already, in a journal, with TPE; and opening it."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    config = StudyConfig.model_validate(
        STUDY | {"search_space": {"mlp": {"low": 0.25, "step": 0.25}}, "sweep": STUDY["sweep"] | {"n_trials": 10_000}}
    )
    with tempfile.TemporaryDirectory() as place:
        search = StudySearch(config, Path(place))
        generator = torch.Generator().manual_seed(0)
        search.study.sampler = optuna.samplers.RandomSampler(seed=0)
        for _ in range(trials):
            trial = search.study.ask()
            draw(trial, config.sweep)
            search.study.tell(trial, torch.rand(2, generator=generator).tolist())
        search.study.sampler = sampler_of(config.sweep, 0)

        def ask_and_tell() -> None:
            trial = search.study.ask()
            draw(trial, config.sweep)
            search.study.tell(trial, torch.rand(2, generator=generator).tolist())

        each = per_second(ask_and_tell)
        start = time.perf_counter()
        optuna.load_study(study_name="benchmark", storage=storage(Path(place)))
        opening = time.perf_counter() - start
        size = (Path(place) / "journal.log").stat().st_size
    return {"trials": trials, "asked_and_told_per_second": each, "seconds_to_open": opening, "journal_mb": size / 1e6}


def storage(folder: Path) -> optuna.storages.BaseStorage:
    """A journal, opened anew."""
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / "journal.log")))


def table_rates() -> dict[str, Any]:
    """Rows written, and looked up and read where there are many, each a file as trials leave them."""
    config, found = config_of(1, 1), {}
    row = base_row(config, {"search.lr": 0.1}, 0) | {"status": "complete", "top1": 90.0, "gmacs": 1.0}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)

        def write() -> None:
            write_row(place, row | {"trial": next_number()})

        numbers = iter(range(1_000_000))

        def next_number() -> int:
            return next(numbers)

        found["rows_written_per_second"] = per_second(write)
        for rows in (1_000, 4_000):
            while next_trial(place) < rows:
                write()
            start = time.perf_counter()
            read_table(place)
            found[f"seconds_to_read_{rows}"] = time.perf_counter() - start
        found["rows_looked_up_per_second"] = per_second(lambda: read_row(place, 1))
    return found


def main() -> None:
    """Run the parts that are asked for, and print each as JSON."""
    parts = {"overhead": overhead, "use": use, "nodes": nodes, "rates": rates}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *parts], help="by default all")
    for name in parser.parse_args().parts or parts:
        print(json.dumps({name: parts[name]()}), flush=True)


if __name__ == "__main__":
    main()

"""What early stopping saves and what it costs, on studies in which every epoch was measured.

    python benchmarks/early_stopping.py record digits --seed 0    # stops no trial; 10 minutes
    python benchmarks/early_stopping.py record digits --seed 1 --sampler random
    python benchmarks/early_stopping.py record short --seed 2 --sampler random    # 3 minutes
    python benchmarks/early_stopping.py record few --seed 3 --sampler random    # 5 minutes
    python benchmarks/early_stopping.py replay    # each method, over all recordings
    python benchmarks/early_stopping.py replay --registry ../optunahub-registry/package

A recording has a row for each epoch of each trial's search, with what the trial would have reported
if that epoch had been a rung, and a last row with the final results of the trial. A replay lets
trials arrive as they would with some workers, takes every epoch to last equally long, and asks the
same rule that a study asks; it ignores what was recorded after a stop. It cannot show which other
trials a sampler would have suggested. With a clone of OptunaHub's registry, its multi_metric_pruner
is asked, too.
"""

from __future__ import annotations

import heapq
import itertools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import hub_pruners
import numpy as np
import optuna
import pandas as pd
import torch
import typer

from ofbnas.config import StudyConfig
from ofbnas.config.study_file import load_study
from ofbnas.study.cluster.sampling import StudySearch
from ofbnas.study.cluster.stopping import rule_of
from ofbnas.study.images import data_of
from ofbnas.study.parent import trained_parent, untrained_parent
from ofbnas.study.trial import run_trial
from ofbnas.study.tuning.rungs import Reached
from ofbnas.table.columns import KNOWN_AT_RUNGS
from ofbnas.table.indicators import volume_share
from ofbnas.training.events import Callback

STUDY = Path(__file__).parent.parent / "studies" / "digits.yaml"
RECORDINGS = Path(__file__).parent / "early_stopping"
SWEPT = (
    "sweep.params={search.budget.gmacs_share: {low: 0.12, high: 0.6}, "
    "search.lr: {low: 3.0e-4, high: 0.01, log: true}}"
)
SETTINGS = {
    "digits": ["sweep.n_trials=32"],
    "short": ["sweep.n_trials=48", "search.epochs=12", "search.distill=null", "finetune=null"],
    # A tenth of the training images: accuracies lie far apart.
    "few": [
        "sweep.n_trials=40",
        "search.epochs=16",
        "search.distill=null",
        "search.refine.candidates=0",
        "finetune=null",
        "data.train_share=0.1",
    ],
}
MEDIAN = {"method": "median", "metric": "val_top1"}
# What a study has as its early stopping, which also says the rungs.
METHODS: dict[str, dict[str, Any] | None] = {
    "none": None,
    "front": {"method": "front"},
    "front, epsilon-net": {"method": "front", "ties": "epsilon_net"},
    "asha on val_top1": {"method": "asha", "metric": "val_top1"},
    "median on val_top1": MEDIAN,
}
# Pruners of OptunaHub at the rungs of these methods; the first two decide as `front` does.
HUB = {
    "pareto_front_pruner": {"method": "front"},
    "pareto_front_pruner, epsilon-net": {"method": "front"},
}
# From a clone of the registry, with Optuna's defaults.
MULTI_METRIC = {
    "multi_metric_pruner, median": MEDIAN,
    "multi_metric_pruner, best quarter": MEDIAN,
}
app = typer.Typer()


class Replayed(NamedTuple):
    """What a study with early stopping would have come to.

    Attributes:
        ended: Numbers of the trials that ran to the end.
        epochs: Number of epochs of all trials together.
    """

    ended: list[int]
    epochs: int


class Arrival(NamedTuple):
    """A running trial's next arrival at a rung; arrivals are sorted by time.

    Attributes:
        time: In epochs since the start of the study.
        rung: Index of the rung.
        place: The trial's place in the order of starts.
        trial: Number of the trial in the recording.
    """

    time: int
    rung: int
    place: int
    trial: int


class Recorder(Callback):
    """Keeps what a trial reports at each rung."""

    def __init__(self, trial: int, rows: list[dict[str, float]]) -> None:
        self.trial = trial
        self.rows = rows

    def on_rung(self, epoch: int, metrics: dict[str, float]) -> None:
        """Keep a report."""
        known = {metric: metrics[metric] for metric in KNOWN_AT_RUNGS}
        self.rows.append({"trial": self.trial, "epoch": epoch, **known})


@app.command()
def record(
    name: Annotated[
        str,
        typer.Argument(
            help="digits: the study as it is; short: 12 epochs and no fine-tuning; few: 16 epochs "
            "and few images."
        ),
    ],
    seed: Annotated[int, typer.Option(help="Seed of the study.")] = 0,
    sampler: Annotated[str, typer.Option(help="Sampler of the study.")] = "tpe",
) -> None:
    """Run a study to the end, one trial after the other, and record what each epoch reports."""
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    # The median rule has a rung after each epoch; it is never asked here, so it stops no trial.
    every_epoch = {"method": "median", "metric": "val_top1", "first_rung": 1}
    study = study_of(name, every_epoch, f"seed={seed}", f"sweep.sampler={sampler}")
    data = data_of(study)
    weights = trained_parent(study, data).model.state_dict()
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        search = StudySearch(study, folder)
        for number in range(study.sweep.n_trials):
            params = search.suggest(str(number))["params"]
            recorder = Recorder(number, rows)
            row = run_trial(study, params, number, folder, data, weights, [recorder])
            epochs = (row.search_epochs or 0) + (row.finetune_epochs or 0)
            recorder.on_rung(epochs, row.values())
            search.on_trial_complete(str(number))
            print(f"trial {number}: val_top1 {row.val_top1:.2f}, gmacs {row.gmacs:.4g}")

    RECORDINGS.mkdir(exist_ok=True)
    file = RECORDINGS / f"{name}-{sampler}-{seed}.csv"
    pd.DataFrame(rows).to_csv(file, index=False, float_format="%.6g")


@app.command()
def replay(
    workers: Annotated[int, typer.Option(help="Concurrent trials.")] = 4,
    registry: Annotated[
        Path | None, typer.Option(help="Folder package of a clone of optunahub-registry.")
    ] = None,
) -> None:
    """Print a Markdown table: each method on each recording, as recorded and in other orders."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    print(
        "| recording | method | trials to the end | epochs | hypervolume "
        "| in 20 other orders: epochs | hypervolume |"
    )
    print("|---|---|---|---|---|---|---|")
    for recording in recordings():
        for method in [*METHODS, *(MULTI_METRIC if registry else {})]:
            if method != "none":
                print(replay_row(recording, method, workers, registry))


def replay_row(recording: Recording, method: str, workers: int, registry: Path | None) -> str:
    """A row of the table: one method on one recording."""
    orders = [None, *range(20)]
    replays = [recording.replayed(method, workers, order, registry) for order in orders]
    epochs = [replayed.epochs / recording.epochs for replayed in replays]
    full = recording.share()
    volumes = [recording.share(replayed.ended) / full for replayed in replays]
    return (
        f"| {recording.name} | {method} | {len(replays[0].ended)} of {recording.trials} "
        f"| {epochs[0]:.0%} | {volumes[0]:.2%} "
        f"| {np.mean(epochs[1:]):.0%}, at most {max(epochs[1:]):.0%} "
        f"| {np.mean(volumes[1:]):.2%}, at least {min(volumes[1:]):.2%} |"
    )


def study_of(name: str, stopping: Mapping[str, Any] | None, *settings: str) -> StudyConfig:
    """A recorded study with a method of early stopping."""
    tree = load_study(STUDY, [SWEPT, *SETTINGS[name], *settings]).model_dump()
    tree["sweep"]["early_stopping"] = stopping
    return StudyConfig.model_validate(tree)


def recordings() -> list[Recording]:
    """All recordings."""
    return [Recording(file) for file in sorted(RECORDINGS.glob("*.csv"))]


class Recording:
    """A study that was run to the end.

    Attributes:
        name: Its study, sampler and seed.
        study: Name of the study.
        values: Metrics by trial and epoch.
        trials: Number of trials.
        last: Epoch of the final results, fine-tuning included.
        epochs: Number of epochs of all trials together.
        parent: "gmacs" and "params" of the parent.
    """

    def __init__(self, file: Path) -> None:
        rows = pd.read_csv(file)
        self.name = file.stem
        self.study = file.stem.partition("-")[0]
        self.values = rows.set_index(["trial", "epoch"])[list(KNOWN_AT_RUNGS)].to_dict("index")
        self.trials = rows["trial"].nunique()
        self.last = int(rows["epoch"].max())
        self.epochs = self.trials * self.last

        self.parent = untrained_parent(study_of(self.study, None)).costs()

    def judge(self, method: str, study: StudyConfig, registry: Path | None) -> hub_pruners.Judge:
        """What decides at rungs.

        Args:
            method: A key of METHODS, HUB or MULTI_METRIC.
            study: The study with its early stopping.
            registry: A clone of OptunaHub's registry, for MULTI_METRIC.
        """
        if method in HUB:
            reference = None if "epsilon" in method else (0.0, self.parent["gmacs"])
            return hub_pruners.pareto_front(
                study.first_rung(), reference, self.trials, study.objectives
            )
        if method in MULTI_METRIC:
            assert registry is not None
            base = optuna.pruners.MedianPruner()
            if "quarter" in method:
                base = optuna.pruners.PercentilePruner(25.0)
            return hub_pruners.multi_metric(registry, base, self.trials, study.objectives)
        return hub_pruners.OwnJudge(
            None if METHODS[method] is None else rule_of(study, self.parent)
        )

    def replayed(
        self,
        method: str,
        workers: int = 4,
        order: int | None = None,
        registry: Path | None = None,
    ) -> Replayed:
        """The study with early stopping.

        Args:
            method: A key of METHODS, HUB or MULTI_METRIC.
            workers: Number of concurrent trials.
            order: Seed of another order in which trials start; by default the recorded one.
            registry: As for `judge`.
        """
        study = study_of(self.study, (METHODS | HUB | MULTI_METRIC)[method])
        judge = self.judge(method, study, registry)
        rungs = [*study.rungs(study.search.epochs), self.last]
        waiting = iter(enumerate(self._order(order)))
        first = itertools.islice(waiting, workers)
        running = [Arrival(rungs[0], 0, place, trial) for place, trial in first]
        heapq.heapify(running)
        reached: list[Reached] = []
        ended = []
        epochs = 0
        while running:
            now = heapq.heappop(running)
            epoch = rungs[now.rung]
            if epoch < self.last:
                # Trials are numbered in the order of their starts, as a study numbers them.
                report = Reached(now.place, epoch, self.values[now.trial, epoch])
                promoted = judge.promotes(reached, report)
                reached.append(report)
                if promoted:
                    rung = now.rung + 1
                    time = now.time + rungs[rung] - epoch
                    heapq.heappush(running, now._replace(time=time, rung=rung))
                    continue
            else:
                ended.append(now.trial)
                judge.ended(now.place, self.values[now.trial, epoch])

            # The trial is over: its worker takes the next one.
            epochs += epoch
            for place, trial in itertools.islice(waiting, 1):
                heapq.heappush(running, Arrival(now.time + rungs[0], 0, place, trial))
        return Replayed(sorted(ended), epochs)

    def _order(self, seed: int | None) -> list[int]:
        """Numbers of the trials in the order of their starts."""
        if seed is None:
            return list(range(self.trials))
        permuted: list[int] = np.random.default_rng(seed).permutation(self.trials).tolist()
        return permuted

    def share(self, trials: Sequence[int] | None = None) -> float:
        """Hypervolume of some trials' results, up to the parent's cost and an accuracy of 0.

        Args:
            trials: Numbers of the trials; by default all.
        """
        if trials is None:
            trials = range(self.trials)
        results = [self.values[trial, self.last] for trial in trials]
        points = np.array([[values["gmacs"], values["val_top1"]] for values in results])
        return volume_share(points, (self.parent["gmacs"], 0.0))


if __name__ == "__main__":
    app()

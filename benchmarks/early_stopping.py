"""What early stopping spares and what it costs, on studies that were run to the end with every epoch measured.

    python benchmarks/early_stopping.py record digits --seed 0                    a study that stops nothing; 10 minutes
    python benchmarks/early_stopping.py record digits --seed 1 --sampler random
    python benchmarks/early_stopping.py record short --seed 2 --sampler random    3 minutes
    python benchmarks/early_stopping.py replay                                    each method over what was recorded

A recording has a line for each trial and epoch of its search: what it would have told there had that been a rung; and
after its very last epoch, what its row says. A replay lets trials arrive as they would with some workers, each epoch as
long as any other, and asks the very rule that a study asks; what was recorded after a stop is not looked at. What a
replay cannot show is that a sampler would have asked for other trials.
"""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import optuna
import pandas as pd
import torch
import typer

from ofbnas.config import StudyConfig
from ofbnas.config.sweep import KNOWN_AT_RUNGS
from ofbnas.cost import cost_of, sizes_of
from ofbnas.indicators import volume_share
from ofbnas.parent import data_of, trained_parent, untrained_parent
from ofbnas.study_file import load_study
from ofbnas.sweep.rungs import Reached
from ofbnas.sweep.sampling import StudySearch
from ofbnas.sweep.stopping import rule_of
from ofbnas.trial import run_trial

STUDY = Path(__file__).parent.parent / "studies" / "digits.yaml"
RECORDINGS = Path(__file__).parent / "early_stopping"
SWEPT = (
    "sweep.params={search.budget.gmacs_share: {low: 0.12, high: 0.6}, search.lr: {low: 3.0e-4, high: 0.01, log: true}}"
)
SETTINGS = {
    "digits": ["sweep.n_trials=32"],
    "short": ["sweep.n_trials=48", "search.epochs=12", "search.distill=null", "finetune=null"],
}
METHODS = {
    "none": None,
    "front": {"method": "front"},
    "front, epsilon-net": {"method": "front", "ties": "epsilon_net"},
    "asha on val_top1": {"method": "asha", "metric": "val_top1"},
    "median on val_top1": {"method": "median", "metric": "val_top1"},
}
app = typer.Typer()


class Replayed(NamedTuple):
    """What a study with early stopping would have come to: trials that ended, and epochs of all trials together."""

    ended: list[int]
    epochs: int


@app.command()
def record(
    name: Annotated[str, typer.Argument(help="digits: as the study is; short: 12 epochs and nothing after them.")],
    seed: Annotated[int, typer.Option(help="Seed of the study.")] = 0,
    sampler: Annotated[str, typer.Option(help="Of the study.")] = "tpe",
) -> None:
    """Run a study to the end, one trial after the other, and keep what each epoch would have told."""
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    every = {"method": "median", "metric": "val_top1", "first_rung": 1}  # has a rung after each epoch
    study = study_of(name, every, f"seed={seed}", f"sweep.sampler={sampler}")
    data = data_of(study)
    parent = trained_parent(study, data).model.state_dict()
    lines: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        search = StudySearch(study, Path(folder))
        for number in range(study.sweep.n_trials):
            params = search.suggest(str(number))["params"]

            def tell(epoch: int, values: Mapping[str, float]) -> None:
                known = {metric: values[metric] for metric in KNOWN_AT_RUNGS}
                lines.append({"trial": number, "epoch": epoch, **known})

            row = run_trial(study, params, number, Path(folder), data, parent, lambda *progress: None, on_rung=tell)
            tell(row["search_epochs"] + row["finetune_epochs"], row)
            search.on_trial_complete(str(number))
            print(f"trial {number}: val_top1 {row['val_top1']:.2f}, gmacs {row['gmacs']:.4g}")
    RECORDINGS.mkdir(exist_ok=True)
    pd.DataFrame(lines).to_csv(RECORDINGS / f"{name}-{sampler}-{seed}.csv", index=False, float_format="%.6g")


@app.command()
def replay(workers: Annotated[int, typer.Option(help="Trials at a time.")] = 4) -> None:
    """Print a table in Markdown: each method on each recording, as recorded and in other orders of arrival."""
    print(
        "| recording | method | trials to the end | epochs | hypervolume | in 20 other orders: epochs | hypervolume |"
    )
    print("|---|---|---|---|---|---|---|")
    for recording in recordings():
        for method in list(METHODS)[1:]:
            found = [recording.replayed(method, workers, order) for order in [None, *range(20)]]
            epochs = [one.epochs / recording.epochs for one in found]
            volumes = [recording.share(one.ended) / recording.share() for one in found]
            print(
                f"| {recording.name} | {method} | {len(found[0].ended)} of {recording.trials} | {epochs[0]:.0%} "
                f"| {volumes[0]:.2%} | {np.mean(epochs[1:]):.0%}, at most {max(epochs[1:]):.0%} "
                f"| {np.mean(volumes[1:]):.2%}, at least {min(volumes[1:]):.2%} |"
            )


def study_of(name: str, stopping: Mapping[str, Any] | None, *settings: str) -> StudyConfig:
    """A recorded study with a method of early stopping."""
    tree = load_study(STUDY, [SWEPT, *SETTINGS[name], *settings]).model_dump()
    tree["sweep"]["early_stopping"] = stopping
    return StudyConfig.model_validate(tree)


def recordings() -> list[Recording]:
    """All that have been made."""
    return [Recording(file) for file in sorted(RECORDINGS.glob("*.csv"))]


class Recording:
    """A study that was run to the end.

    Attributes:
        name: Study, sampler and seed.
        trials: How many.
        epochs: Of all trials together.
    """

    def __init__(self, file: Path) -> None:
        told = pd.read_csv(file)
        self.name, self.study = file.stem, file.stem.partition("-")[0]
        self.values = told.set_index(["trial", "epoch"])[list(KNOWN_AT_RUNGS)].to_dict("index")
        self.trials, self.last = told["trial"].nunique(), int(told["epoch"].max())
        self.epochs = self.trials * self.last
        parent = untrained_parent(study_of(self.study, None))
        sizes = sizes_of(parent.axes)
        macs, params = (cost_of(parent.model, parent.axes, metric).of(sizes) for metric in ("macs", "params"))
        self.parent = {"gmacs": macs / 1e9, "params": params}

    def replayed(self, method: str, workers: int = 4, order: int | None = None) -> Replayed:
        """The study with early stopping.

        Args:
            method: One of METHODS.
            workers: Trials at a time.
            order: Seed of another order of arrival; by default that of the recording.
        """
        study = study_of(self.study, METHODS[method])
        rule = rule_of(study, self.parent) if METHODS[method] else None
        rungs = [*study.rungs(study.search.epochs), self.last]
        numbers = range(self.trials) if order is None else np.random.default_rng(order).permutation(self.trials)
        waiting = iter(enumerate(numbers))
        running = [(rungs[0], 0, *next(waiting)) for _ in range(workers)]  # when it is at which rung, and who
        heapq.heapify(running)
        reached: list[Reached] = []
        ended, epochs = [], 0
        while running:
            now, rung, arrival, trial = heapq.heappop(running)
            epoch = rungs[rung]
            if epoch < self.last:
                asked = Reached(arrival, epoch, self.values[trial, epoch])
                goes_on = rule is None or rule(reached, asked)
                reached.append(asked)
                if goes_on:
                    heapq.heappush(running, (now + rungs[rung + 1] - epoch, rung + 1, arrival, trial))
                    continue
            else:
                ended.append(int(trial))
            epochs += epoch
            if (following := next(waiting, None)) is not None:
                heapq.heappush(running, (now + rungs[0], 0, *following))
        return Replayed(sorted(ended), epochs)

    def share(self, trials: Sequence[int] | None = None) -> float:
        """Hypervolume of some trials' rows, by default of all, up to the parent's cost and an accuracy of 0."""
        chosen = [self.values[trial, self.last] for trial in (range(self.trials) if trials is None else trials)]
        points = np.array([[values["gmacs"], values["val_top1"]] for values in chosen])
        return volume_share(points, (self.parent["gmacs"], 0.0))


if __name__ == "__main__":
    app()

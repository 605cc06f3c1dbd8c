"""What each part of the method is worth: a search per row and seed, all else equal.

    python benchmarks/ablation.py            all rows, 3 seeds, a quarter of the training images
    python benchmarks/ablation.py --rows default,distilled --share 1 --budget 0.506
    python benchmarks/ablation.py --print    only the table of the results so far

Results are appended to a CSV file, and what it already has is not run again. So several processes
may share the work: give each its own --rows. Everything else is set by studies/fashion_mnist.yaml.
"""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
import typer
from rich import print

from ofbnas.config import StudyConfig
from ofbnas.config.study_file import load_study
from ofbnas.models.axes import axes
from ofbnas.nas.search import search
from ofbnas.study.images import data_of
from ofbnas.study.parent import Parent, space_of, teacher_of, trained_parent
from ofbnas.training.data import Data
from ofbnas.training.evaluation import evaluate
from ofbnas.training.finetune import finetune

STUDY = Path(__file__).parent.parent / "studies" / "fashion_mnist.yaml"
PLAIN = {"search.distill": None}
# The default space keeps a quarter of each MLP, which is more than some of the parent's blocks use.
NARROW = {"search_space.mlp": [16, 24, 32, 48, 64, 96, 128, 160, 192, 224, 256]}
UNTRAINED = {"search.epochs": 0}
# As many epochs, with the same settings, as a search trains.
TRAINED_AFTERWARDS = UNTRAINED | {"finetune": {"epochs": 8, "batch_size": 128, "lr": 2e-3}}
TRAINED_GENTLY = UNTRAINED | {"finetune": {"epochs": 8, "batch_size": 128, "lr": 5e-4}}
ROWS: dict[str, dict[str, Any]] = {
    "default": PLAIN,
    "importance alone": PLAIN | {"search.importance_weight": {"start": 1.0, "end": 1.0}},
    "sparsity alone": PLAIN | {"search.importance_weight": {"start": 0.0, "end": 0.0}},
    "one-hot loss 0.05": PLAIN | {"search.one_hot_weight": 0.05},
    "one-hot loss 0.5": PLAIN | {"search.one_hot_weight": 0.5},
    "PMIM off": PLAIN | {"search.pmim.weight": 0.0},
    "noise start": PLAIN | {"search.importance.start": "noise"},
    "magnitude start": PLAIN | {"search.importance.start": "magnitude"},
    "residual mask off": PLAIN | {"search.residual_mask": False},
    "folded masks": PLAIN | {"search.decided_masks": "folded"},
    "searched weights": PLAIN | {"search.decided_weights": "searched"},
    "untrained": UNTRAINED,
    "untrained then 8 epochs": TRAINED_AFTERWARDS,
    "untrained then 8 epochs at lr 5e-4": TRAINED_GENTLY,
    "narrow MLPs": PLAIN | NARROW,
    "narrow MLPs: searched weights": PLAIN | NARROW | {"search.decided_weights": "searched"},
    "narrow MLPs: untrained": UNTRAINED | NARROW,
    "narrow MLPs: untrained then 8 epochs": TRAINED_AFTERWARDS | NARROW,
    "narrow MLPs: untrained then 8 epochs at lr 5e-4": TRAINED_GENTLY | NARROW,
    "distilled": {"search.distill.features": 0.0},
    "distilled from hard outputs": {"search.distill.features": 0.0, "search.distill.hard": True},
    "distilled with features": {},
}


KEYS = ["row", "seed", "share", "budget"]


def main(
    rows: Annotated[str, typer.Option(help="Names of rows, separated by commas.")] = ",".join(ROWS),
    seeds: Annotated[int, typer.Option(help="Number of seeds of each row, from 0.")] = 3,
    share: Annotated[float, typer.Option(help="Share of the training images.")] = 0.25,
    budget: Annotated[
        float, typer.Option(help="Share of the parent's multiply-accumulates.")
    ] = 0.284,
    out: Annotated[Path, typer.Option(help="CSV file of the results.")] = Path("runs/ablation.csv"),
    only_print: Annotated[bool, typer.Option("--print", help="Run nothing.")] = False,
) -> None:
    """Run what is missing, then print the table in Markdown."""
    torch.set_num_threads(1)
    if not only_print:
        out.parent.mkdir(parents=True, exist_ok=True)
        run_missing(rows.split(","), seeds, share, budget, out)
    results = pd.read_csv(out)
    print_table(results[(results["share"] == share) & (results["budget"] == budget)])


def run_missing(rows: list[str], seeds: int, share: float, budget: float, out: Path) -> None:
    """Run the rows and seeds that the file lacks, and append their results to it."""
    study = load_study(STUDY, [f"search.budget.gmacs_share={budget}", f"data.train_share={share}"])
    data = data_of(study)
    parent = trained_parent(study, data)

    # All rows of a seed come before the next seed, so that an interrupted run compares all rows.
    for seed, row in itertools.product(range(seeds), rows):
        key = dict(zip(KEYS, (row, seed, share, budget), strict=True))
        if is_done(out, key):
            continue
        result = run(study.with_values(ROWS[row]), parent, data, seed)
        line = pd.DataFrame([key | result])
        line.to_csv(out, mode="a", header=not out.exists(), index=False)


def run(study: StudyConfig, parent: Parent, data: Data, seed: int) -> dict[str, Any]:
    """The results of one search, fine-tuned if the study says so."""
    start = time.monotonic()
    result = search(
        parent.model,
        data,
        study.search,
        name=study.model.name,
        kwargs=parent.kwargs,
        axes=axes(parent.model, space_of(study.search_space)),
        seed=seed,
        teacher=teacher_of(study.search.distill, parent.model, data),
    )
    subnet = result.subnet
    if study.finetune is not None:
        subnet = finetune(subnet, data, study.finetune, teacher=parent.model, seed=seed)
    sizes = result.subnet.architecture.sizes
    return {
        "top1": evaluate(subnet.model, data.test).top1,
        "val_top1": evaluate(subnet.model, data.val).top1,
        "macs": result.macs,
        "params": result.params,
        "forced": result.forced,
        "seconds": round(time.monotonic() - start),
        "sizes": " ".join(f"{groups}x{channels}" for groups, channels in sizes.values()),
    }


def is_done(out: Path, key: dict[str, Any]) -> bool:
    """Whether the file has the result of a row and seed."""
    if not out.exists():
        return False
    results = pd.read_csv(out)
    return bool((results[KEYS] == pd.Series(key)).all(axis=1).any())


def print_table(results: pd.DataFrame) -> None:
    """Print the mean and the spread of each row over its seeds, in Markdown."""
    groups = results.groupby("row", sort=False)["top1"]
    means = groups.mean()
    deviations = groups.std()
    seeds = groups.size()
    print("| | top-1, mean of seeds | standard deviation | seeds |\n|---|---|---|---|")
    for row in ROWS:
        if row in means.index:
            print(f"| {row} | {means[row]:.2f} | {deviations[row]:.2f} | {seeds[row]} |")


if __name__ == "__main__":
    typer.run(main)

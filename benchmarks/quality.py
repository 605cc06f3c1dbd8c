"""Whether a search is worth it: its networks against cheap rules, at equal cost and training.

    python benchmarks/quality.py                          all that is missing; it takes many hours
    python benchmarks/quality.py --parents vit --budgets 0.284 --rows "default;uniform" --seeds 3
    python benchmarks/quality.py --print                  only the tables of the results so far
    python benchmarks/quality.py --idle                   what each part of the parents is worth
    python benchmarks/quality.py --print --out benchmarks/results    what docs/benchmarks.md shows

Each row makes a network of a parent (benchmarks/parents) within a budget, and trains it for as many
epochs in all, by the same recipe, on the same images; rows named "untrained" have no epochs.
Results are written to a folder, one Parquet file each, and what it has is not run again. So several
processes may share the work. Parents are trained first and cached, a quarter of an hour each.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import platform
import time
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Annotated, NamedTuple

import controls
import pandas as pd
import pyarrow as pa
import torch
import typer
from quality_rows import ROWS, Case
from quality_tables import read, tables
from torch import Tensor, nn

from ofbnas.config import StudyConfig, TrainConfig
from ofbnas.config.study_file import load_study
from ofbnas.models.axes import Size
from ofbnas.models.axes import axes as axes_of
from ofbnas.models.cost import cost_of, sizes_of
from ofbnas.models.passes import FeaturesAndOutputs
from ofbnas.nas.budget import budget_of
from ofbnas.nas.plain import Network
from ofbnas.nas.saliency import best_units
from ofbnas.nas.timing import typical
from ofbnas.study.images import data_of
from ofbnas.study.parent import Parent, teacher_of, trained_parent
from ofbnas.study.provenance import git_commit, versions
from ofbnas.table import parquet
from ofbnas.table.latency import Conditions
from ofbnas.training.data import Data
from ofbnas.training.evaluation import evaluate
from ofbnas.training.latency import cpu_threads, in_turns, prepared
from ofbnas.training.plain import Loss, fit
from ofbnas.training.teacher import Teacher

FOLDER = Path(__file__).parent / "parents"
PARENTS = ("vit", "swin")
BUDGETS = "0.5,0.284,0.15"


class Key(NamedTuple):
    """What a result belongs to.

    Attributes:
        parent: Name of a file of benchmarks/parents.
        row: Name of a row.
        budget: Share of the parent's multiply-accumulates.
        share: Share of the training images.
        epochs: Of training in all.
        lr: Highest learning rate.
        distilled: Whether the parent teaches.
        seed: Of everything random.
    """

    parent: str
    row: str
    budget: float
    share: float
    epochs: int
    lr: float
    distilled: bool
    seed: int

    def study(self, *settings: str) -> StudyConfig:
        """The parent's study for this case, with more settings as for --set."""
        given = [
            f"search.budget.gmacs_share={self.budget}",
            f"search.epochs={self.epochs}",
            f"search.lr={self.lr}",
        ]
        if self.distilled:
            given.append("search.distill={weight: 0.5, temperature: 2.0}")
        return load_study(study_file(self.parent), [*given, *settings])

    def file(self, folder: Path) -> Path:
        """The file of the result."""
        name = hashlib.sha256(json.dumps(self).encode()).hexdigest()[:16]
        return folder / f"{name}.parquet"


def main(
    parents: Annotated[str, typer.Option(help="Separated by commas.")] = ",".join(PARENTS),
    budgets: Annotated[str, typer.Option(help="Shares of the parent's cost.")] = BUDGETS,
    rows: Annotated[str, typer.Option(help="Names, separated by semicolons.")] = ";".join(ROWS),
    seeds: Annotated[int, typer.Option(help="Number of seeds, from 0.")] = 5,
    share: Annotated[float, typer.Option(help="Share of the training images.")] = 0.15,
    epochs: Annotated[int, typer.Option(help="Of training in all.")] = 8,
    lr: Annotated[float, typer.Option(help="Highest learning rate.")] = 2e-3,
    distilled: Annotated[bool, typer.Option(help="Let the parent teach.")] = False,
    against: Annotated[str, typer.Option(help="The row that others are compared with.")] = (
        "default"
    ),
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("runs/quality"),
    only_print: Annotated[bool, typer.Option("--print", help="Run nothing.")] = False,
    idle: Annotated[
        bool, typer.Option("--idle", help="Only cut each axis of the parents.")
    ] = False,
) -> None:
    """Run what is missing, then print a table for each parent, budget and recipe."""
    if idle:
        for parent in parents.split(","):
            print_idle(parent)
        return
    if not only_print:
        shares = [float(budget) for budget in budgets.split(",")]
        # All rows of a seed come before the next seed, so that an interrupted run compares them.
        for seed, parent, budget, row in itertools.product(
            range(seeds), parents.split(","), shares, rows.split(";")
        ):
            key = Key(parent, row, budget, share, epochs, lr, distilled, seed)
            if not key.file(out).exists():
                run(key, out)
    print("\n\n".join(tables(read(out), against)))


def run(key: Key, folder: Path) -> None:
    """Make and train one network, and write its result."""
    parent, data, images = parent_and_data(key.parent, key.share)
    study = key.study()
    budget = budget_of(parent.model, parent.axes, study.search.budget)
    case = Case(key.study, parent, data, budget, key.seed, partial(found, key, folder))

    start = time.monotonic()
    model, is_trained = ROWS[key.row](case)
    made = time.monotonic()
    before = evaluate(model, data.val)
    if not is_trained:
        train(model, case)
    axes = axes_of(model)
    sizes = sizes_of(axes)
    result = key._asdict() | {
        "top1": evaluate(model, data.test).top1,
        "val_top1": evaluate(model, data.val).top1,
        "val_top1_before_training": None if is_trained else before.top1,
        "parent_top1": parent_top1(key.parent),
        "macs_share": cost_of(model, axes).of(sizes) / budget.full,
        "params": cost_of(model, axes, "params").of(sizes),
        "time_share": time_share(model, parent.model),
        "train_images": images,
        "seconds_to_make": made - start,
        "seconds": time.monotonic() - start,
        "sizes": json.dumps([list(size) for size in sizes]),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": json.dumps(versions()),
        "commit": git_commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    parquet.write(pa.Table.from_pylist([result]), key.file(folder))
    print(f"{key.parent} {key.budget} {key.row} {key.seed}: {result['top1']:.2f}", flush=True)


def time_share(model: nn.Module, parent: nn.Module) -> float:
    """The time of one image on one thread, relative to the parent's.

    The networks take turns, and the fastest tenth counts: other work only adds to a time.
    """
    one_image = Conditions(device="cpu", threads=1, batch_size=1, dtype="float32")
    with cpu_threads(1):
        both = [prepared(network, one_image) for network in (model, parent)]
        of_model, of_parent = (typical(times) for times in in_turns(both, num_batches=400))
    return of_model / of_parent


def found(key: Key, folder: Path, row: str) -> list[Size]:
    """The sizes that another row of the same case has found; it is run first, if need be."""
    other = key._replace(row=row)
    if not other.file(folder).exists():
        run(other, folder)
    (sizes,) = pd.read_parquet(other.file(folder))["sizes"]
    return [(groups, channels) for groups, channels in json.loads(sizes)]


def train(model: nn.Module, case: Case) -> None:
    """Train a network of fixed sizes by the recipe of the searches that train."""
    config = case.settings().search
    recipe = TrainConfig(**{name: getattr(config, name) for name in TrainConfig.model_fields})
    loss = None
    teacher = teacher_of(config.distill, case.parent.model, case.data)
    if teacher is not None:
        loss = taught(teacher, config.label_smoothing)
    fit(model, case.data, recipe, seed=case.seed, loss=loss)


def taught(teacher: Teacher, label_smoothing: float) -> Loss:
    """The loss of a network that learns from the parent's outputs, too."""
    criterion = nn.CrossEntropyLoss(label_smoothing=label_smoothing)
    no_channels = torch.empty(0, dtype=torch.long)  # features are not compared

    def loss(learned: FeaturesAndOutputs, images: Tensor, labels: Tensor) -> Tensor:
        task = criterion(learned.outputs, labels)
        return teacher.loss(task, learned, teacher(images), no_channels)

    return loss


def study_file(parent: str) -> Path:
    """The study that describes a parent: a file's path, or the name of one in benchmarks/parents."""
    return Path(parent) if parent.endswith(".yaml") else FOLDER / f"{parent}.yaml"


@cache
def parent_and_data(name: str, share: float) -> tuple[Parent, Data, int]:
    """The trained parent, which has seen all training images, and the images of a share of them."""
    study = load_study(study_file(name))
    parent = trained_parent(study, data_of(study))
    data = data_of(load_study(study_file(name), [f"data.train_share={share}"]))
    return parent, data, data.train_images


@cache
def parent_top1(name: str) -> float:
    """The parent's accuracy on the test split, percent."""
    parent, data, _ = parent_and_data(name, 1.0)
    return evaluate(parent.model, data.test).top1


def print_idle(name: str) -> None:
    """Print what is lost where one axis alone is cut to a quarter of its units, or to a half.

    Where nothing is lost, units are idle, and any rule that finds them looks good.
    """
    parent, data, _ = parent_and_data(name, 1.0)
    study = load_study(study_file(name))
    whole = Network.whole(parent.model, parent.axes)
    saliency = controls.saliency_of(whole, data, study.search, study.seed)
    accuracy = evaluate(parent.model, data.val).top1
    print(f"{name}: validation top-1 {accuracy:.2f}, of which are lost with\n")
    print("| axis | 3 of 4 units | half of the units | units below a thousandth of the mean |")
    print("|---|---|---|---|")
    for axis in parent.axes:
        groups, channels = axis.size
        lost = []
        for left in (1 / 4, 1 / 2):
            size = (groups, round(left * channels))
            kept = {axis.name: best_units(saliency[axis.name], axis.size, size)}
            lost.append(accuracy - evaluate(whole.cut(kept).model, data.val).top1)
        of_axis = saliency[axis.name]
        idle = int((of_axis < controls.IDLE * of_axis.mean()).sum())
        print(f"| {axis.name} | {lost[0]:.2f} | {lost[1]:.2f} | {idle} of {axis.units} |")
    print()


if __name__ == "__main__":
    torch.set_num_threads(1)
    typer.run(main)

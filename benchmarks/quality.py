"""Whether a search is worth it: its networks against cheap rules, at equal cost and training.

    python benchmarks/quality.py                          all that is missing; it takes many hours
    python benchmarks/quality.py --parents vit --budgets 0.284 --rows "default;uniform" --seeds 3
    python benchmarks/quality.py --print                  only the tables of the results so far
    python benchmarks/quality.py --idle                   what each part of the parents is worth

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
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Annotated, NamedTuple

import controls
import numpy as np
import pandas as pd
import pyarrow as pa
import torch
import typer
from scipy import stats
from torch import Tensor, nn

from ofbnas.config import DistillConfig, StudyConfig, TrainConfig
from ofbnas.config.study_file import load_study
from ofbnas.models.axes import Size
from ofbnas.models.axes import axes as axes_of
from ofbnas.models.cost import cost_of, sizes_of
from ofbnas.models.passes import FeaturesAndOutputs
from ofbnas.nas.budget import Budget, budget_of
from ofbnas.nas.compensation import Cut, compensate_
from ofbnas.nas.images import first_images
from ofbnas.nas.plain import Network
from ofbnas.nas.saliency import best_units
from ofbnas.nas.search import search
from ofbnas.study.parent import Parent, data_of, teacher_of, trained_parent
from ofbnas.study.provenance import git_commit, versions
from ofbnas.table import parquet
from ofbnas.training.data import Data
from ofbnas.training.evaluation import evaluate
from ofbnas.training.plain import Loss, fit

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

    def settings(self) -> list[str]:
        """The same as settings of the parent's study."""
        given = [
            f"search.budget.gmacs_share={self.budget}",
            f"search.epochs={self.epochs}",
            f"search.lr={self.lr}",
        ]
        if self.distilled:
            given.append("search.distill={weight: 0.5, temperature: 2.0}")
        return given

    def file(self, folder: Path) -> Path:
        """The file of the result."""
        name = hashlib.sha256(json.dumps(self).encode()).hexdigest()[:16]
        return folder / f"{name}.parquet"


class Case(NamedTuple):
    """What a row starts from.

    Attributes:
        key: What its result belongs to.
        study: Settings.
        parent: The trained parent.
        data: The images.
        budget: What a network may cost.
        folder: Of results: rows may start from the sizes that others have found.
    """

    key: Key
    study: StudyConfig
    parent: Parent
    data: Data
    budget: Budget
    folder: Path

    def found(self, row: str) -> list[Size]:
        """The sizes that another row has found in the same case."""
        file = self.key._replace(row=row).file(self.folder)
        if not file.exists():
            run(self.key._replace(row=row), self.folder)
        (sizes,) = pd.read_parquet(file)["sizes"]
        return [(groups, channels) for groups, channels in json.loads(sizes)]


class Made(NamedTuple):
    """A network, and whether all its training is done."""

    model: nn.Module
    is_trained: bool


Row = Callable[[Case], Made]
Rule = Callable[[Case, dict[str, Tensor]], list[Size]]


def searched(*settings: str) -> Row:
    """A search that trains, with settings as for --set."""
    return lambda case: Made(_search(case, settings), is_trained=True)


def in_steps(*settings: str, untrained: bool = False) -> Row:
    """The search without training; its network is then trained, unless `untrained`."""
    without = ("search.epochs=0", *settings)
    return lambda case: Made(_search(case, without), is_trained=untrained)


def ruled(rule: Rule, *, compensated: bool = False) -> Row:
    """Sizes by a rule, which may look at the saliency; the most salient units are kept."""

    def make(case: Case) -> Made:
        whole = Network.whole(case.parent.model, case.parent.axes)
        saliency = controls.saliency_of(whole, case.data, case.study.search, case.key.seed)
        network = controls.cut_to(whole, rule(case, saliency), saliency)
        if compensated:
            config = case.study.search.compensation
            images = first_images(case.data, config.images, case.key.seed)
            cut = Cut(whole.model, whole.axes, network.model, network.axes, network.units)
            compensate_(cut, lambda: images, config.ridge)
        return Made(network.model, is_trained=False)

    return make


def torch_pruned(scope: str) -> Row:
    """Torch-Pruning's ranking in a scope."""

    def make(case: Case) -> Made:
        pruned = controls.torch_pruned(
            case.parent.model, case.data, case.study.search, case.budget, scope, case.key.seed
        )
        return Made(pruned, is_trained=False)

    return make


def uniform(case: Case, saliency: dict[str, Tensor]) -> list[Size]:
    """All axes at the same share."""
    return controls.uniform(case.parent.axes, case.budget)


def live_then_uniform(case: Case, saliency: dict[str, Tensor]) -> list[Size]:
    """All axes at the same share of their units that are not idle."""
    return controls.live_then_uniform(case.parent.axes, case.budget, saliency)


def random(case: Case, saliency: dict[str, Tensor]) -> list[Size]:
    """Random sizes."""
    return controls.random_sizes(case.parent.axes, case.budget, case.key.seed)


def knapsack(case: Case, saliency: dict[str, Tensor]) -> list[Size]:
    """Those with the highest sum of saliencies."""
    return controls.knapsack(case.parent.axes, case.budget, saliency)


def sizes_of_row(row: str) -> Rule:
    """The sizes that another row has found."""
    return lambda case, saliency: case.found(row)


def alike(row: str) -> Rule:
    """All blocks alike, at the mean widths that another row has found."""
    return lambda case, saliency: controls.alike(case.parent.axes, case.budget, case.found(row))


# Rows that start from the sizes of others cost what these cost, and their own training on top.
ROWS: dict[str, Row] = {
    "default": searched(),
    "searched weights": searched("search.decided_weights=searched"),
    "preset reference": searched("search.preset=reference"),
    "cut in steps": in_steps(),
    "cut in steps, untrained": in_steps(untrained=True),
    "cut in one step": in_steps("search.training_free.step=0.01"),
    "uniform": ruled(uniform),
    "uniform, compensated": ruled(uniform, compensated=True),
    "random": ruled(random),
    "live, then uniform": ruled(live_then_uniform),
    "knapsack over Taylor": ruled(knapsack),
    "knapsack over Taylor, compensated": ruled(knapsack, compensated=True),
    "Torch-Pruning, local": torch_pruned("local"),
    "Torch-Pruning, global": torch_pruned("global"),
    "Torch-Pruning, isomorphic": torch_pruned("isomorphic"),
    "the sizes of default": ruled(sizes_of_row("default")),
    "the sizes of default, compensated": ruled(sizes_of_row("default"), compensated=True),
    "blocks alike, means of default": ruled(alike("default")),
    "the sizes of cut in steps": ruled(sizes_of_row("cut in steps")),
    "blocks alike, means of cut in steps": ruled(alike("cut in steps")),
    "blocks alike, means of cut in steps, compensated": ruled(
        alike("cut in steps"), compensated=True
    ),
}


def _search(case: Case, settings: Sequence[str]) -> nn.Module:
    """The network of a search."""
    study = load_study(study_file(case.key.parent), [*case.key.settings(), *settings])
    result = search(
        case.parent.model,
        case.data,
        study.search,
        name=study.model.name,
        kwargs=case.parent.kwargs,
        axes=case.parent.axes,
        seed=case.key.seed,
    )
    return result.subnet.model


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
    study = load_study(study_file(key.parent), key.settings())
    budget = budget_of(parent.model, parent.axes, study.search.budget)
    case = Case(key, study, parent, data, budget, folder)

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


def train(model: nn.Module, case: Case) -> None:
    """Train a network of fixed sizes by the recipe of the searches that train."""
    config = case.study.search
    recipe = TrainConfig(**{name: getattr(config, name) for name in TrainConfig.model_fields})
    fit(model, case.data, recipe, seed=case.key.seed, loss=_taught(case, config.distill))


def _taught(case: Case, config: DistillConfig | None) -> Loss | None:
    """The loss of a network that learns from the parent's outputs, too."""
    teacher = teacher_of(config, case.parent.model, case.data)
    if teacher is None:
        return None
    criterion = nn.CrossEntropyLoss(label_smoothing=case.study.search.label_smoothing)

    def loss(learned: FeaturesAndOutputs, images: Tensor, labels: Tensor) -> Tensor:
        task = criterion(learned.outputs, labels)
        no_channels = torch.empty(0, dtype=torch.long)  # features are not compared
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


def read(folder: Path) -> pd.DataFrame:
    """All results of a folder.

    Raises:
        FileNotFoundError: It has none.
    """
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise FileNotFoundError(f"{folder} has no results")
    return pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)


def tables(results: pd.DataFrame, against: str) -> Iterator[str]:
    """For each parent, budget and recipe the rows in Markdown, with differences from one of them.

    A difference is the mean over the seeds that both rows have, with its 95 % interval by Student's
    t for paired values; with one seed there is no interval.
    """
    recipe = ["parent", "budget", "share", "epochs", "lr", "distilled"]
    for group, of_group in results.groupby(recipe):
        named = dict(zip(recipe, group, strict=True))
        parent_accuracy = of_group["parent_top1"].iloc[0]
        lines = [
            f"{named['parent']} at {100 * named['budget']:g} % of the MACs, parent "
            f"{parent_accuracy:.2f}; {named['share']:g} of the images, {named['epochs']} epochs, "
            f"lr {named['lr']:g}{', distilled' if named['distilled'] else ''}:",
            "",
            f"| | top-1 | runs | against {against} | MACs, % | before training, val |",
            "|---|---|---|---|---|---|",
        ]
        top1 = of_group.pivot_table(index="seed", columns="row", values="top1")
        by_row = of_group.groupby("row")
        shares = 100 * by_row["macs_share"].mean()
        before = by_row["val_top1_before_training"].mean()
        for row in top1.mean().sort_values(ascending=False).index:
            difference = ""
            if row != against and against in top1:
                difference = paired((top1[row] - top1[against]).dropna().to_numpy())
            untrained = f"{before[row]:.2f}" if before[row] == before[row] else ""
            lines.append(
                f"| {row} | {top1[row].mean():.2f} | {top1[row].count()} | {difference} "
                f"| {shares[row]:.1f} | {untrained} |"
            )
        yield "\n".join(lines)


def paired(differences: np.ndarray) -> str:
    """The mean of paired differences and, of several, half the width of its 95 % interval.

    >>> paired(np.array([1.0, 2.0, 3.0]))
    '+2.00 ± 2.48'
    >>> paired(np.array([0.5]))
    '+0.50'
    """
    count = len(differences)
    if count == 0:
        return ""
    mean = f"{differences.mean():+.2f}"
    if count == 1:
        return mean
    error = differences.std(ddof=1) / np.sqrt(count)
    return f"{mean} ± {stats.t.ppf(0.975, count - 1) * error:.2f}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    typer.run(main)

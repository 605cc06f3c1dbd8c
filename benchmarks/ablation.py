"""What each part of the method is worth: one search and fine-tuning per row and seed, all else equal.

    python benchmarks/ablation.py                                 all rows, 3 seeds, a quarter of the training images
    python benchmarks/ablation.py --rows default,distilled --share 1 --budget 0.506
    python benchmarks/ablation.py --print                         only the table of what has been run

Results are appended to a CSV file; what is there already is not run again, so several processes may share the work:
give each other --rows or --seeds. Everything else is as studies/fashion_mnist.yaml says.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
import typer
from rich import print

from ofbnas.finetune import finetune
from ofbnas.parent import data_of, teacher_of, trained_parent
from ofbnas.search import search
from ofbnas.study_file import load_study
from ofbnas.training import evaluate

STUDY = Path(__file__).parent.parent / "studies" / "fashion_mnist.yaml"
PLAIN = {"search.distill": None}
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
    "distilled": {"search.distill.features": 0.0},
    "distilled from hard outputs": {"search.distill.features": 0.0, "search.distill.hard": True},
    "distilled with features": {},
}


def main(
    rows: Annotated[str, typer.Option(help="Rows by name, with commas between them.")] = ",".join(ROWS),
    seeds: Annotated[int, typer.Option(help="Seeds of each row, from 0.")] = 3,
    share: Annotated[float, typer.Option(help="Share of the training images.")] = 0.25,
    budget: Annotated[float, typer.Option(help="Share of the parent's multiply-accumulates.")] = 0.284,
    out: Annotated[Path, typer.Option(help="CSV file of the results.")] = Path("runs/ablation.csv"),
    only_print: Annotated[bool, typer.Option("--print", help="Run nothing.")] = False,
) -> None:
    """Run what is missing, then print the table in Markdown."""
    torch.set_num_threads(1)
    study = load_study(STUDY, [f"search.budget.gmacs_share={budget}", f"data.train_share={share}"])
    out.parent.mkdir(parents=True, exist_ok=True)
    if not only_print:
        data = data_of(study)
        parent = trained_parent(study, data)
        for seed in range(seeds):
            for row in rows.split(","):
                key = {"row": row, "seed": seed, "share": share, "budget": budget}
                if not _done(out, key):
                    result = run(study.with_values(ROWS[row]), parent, data, seed)
                    pd.DataFrame([key | result]).to_csv(out, mode="a", header=not out.exists(), index=False)
    table = pd.read_csv(out)
    table = table[(table["share"] == share) & (table["budget"] == budget)]
    groups = table.groupby("row", sort=False)["top1"]
    summary = pd.DataFrame({"mean": groups.mean(), "std": groups.std(), "seeds": groups.size()})
    print("| | top-1, mean of seeds | standard deviation | seeds |\n|---|---|---|---|")
    for row in [row for row in ROWS if row in summary.index]:
        line = summary.loc[row]
        print(f"| {row} | {line['mean']:.2f} | {line['std']:.2f} | {int(line['seeds'])} |")


def run(study: Any, parent: Any, data: Any, seed: int) -> dict[str, Any]:
    """One search, and fine-tuning if the study has it."""
    start = time.monotonic()
    found = search(
        parent.model,
        data,
        study.search,
        name=study.model.name,
        kwargs=parent.kwargs,
        axes=parent.axes,
        seed=seed,
        teacher=teacher_of(study.search.distill, parent.model, data),
    )
    subnet = found.subnet
    if study.finetune is not None:
        subnet = finetune(subnet, data, study.finetune, teacher=parent.model, seed=seed)
    sizes = found.subnet.architecture.sizes
    return {
        "top1": evaluate(subnet.model, data.test).top1,
        "val_top1": evaluate(subnet.model, data.val).top1,
        "macs": found.macs,
        "params": found.params,
        "forced": found.forced,
        "seconds": round(time.monotonic() - start),
        "sizes": " ".join(f"{groups}x{channels}" for groups, channels in sizes.values()),
    }


def _done(out: Path, key: dict[str, Any]) -> bool:
    if not out.exists():
        return False
    table = pd.read_csv(out)
    return bool((table[list(key)] == pd.Series(key)).all(axis=1).any())


if __name__ == "__main__":
    typer.run(main)

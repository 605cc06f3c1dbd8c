"""Folders of studies with plausible made-up rows, histories and journals, without any training."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
from conftest import DIGITS
from optuna.trial import TrialState
from rows import write_row

from ofbnas.config.study_file import dump_study, load_study
from ofbnas.models.architecture import encode_sizes
from ofbnas.study.report import contents, study_of, write_page
from ofbnas.study.tuning.journal import no_journal, read_journal
from ofbnas.study.tuning.storage import storage_of
from ofbnas.table.history import write_history
from ofbnas.table.layout import is_study

NAN = "NotFiniteError: the loss became NaN in search, step 12"
HOSTILE = "</script ><script >document.title = 'broken'</script><img src=x onerror=\"document.title = 'broken'\">"
Sizes = dict[str, tuple[int, int]]
BLOCKS = [f"blocks.{index}" for index in range(4)]
PARENTS: dict[str, Sizes] = {
    "vit": {"embed": (1, 64)}
    | {f"{block}.{part}": size for block in BLOCKS for part, size in (("attn", (4, 16)), ("mlp", (1, 256)))},
    "beit": {"embed": (12, 64)} | {f"{block}.mlp": (1, 3072) for block in BLOCKS},
    "swin": {
        f"layers.{stage}.{part}": size
        for stage, heads in enumerate((3, 6))
        for part, size in (
            ("embed", (1, 32 * heads)), ("blocks.0.attn", (heads, 32)), ("blocks.0.mlp", (1, 128 * heads)),
            ("blocks.1.attn", (heads, 32)), ("blocks.1.mlp", (1, 128 * heads)),
        )
    },
}  # fmt: skip


def kinds_of(sizes: Sizes) -> dict[str, str]:
    return {name: name.rpartition(".")[2] for name in sizes}


def begin(folder: Path, n_trials: int = 12) -> Path:
    """A study's folder before its first row."""
    folder.mkdir(parents=True, exist_ok=True)
    config = load_study(DIGITS, [f"sweep.n_trials={n_trials}"])
    (folder / "study.yaml").write_text(dump_study(config))
    return folder


def shrunk(parent: Sizes, share: float) -> Sizes:
    """Sizes with about a share of each axis' channels, and of its heads if it has any."""
    return {
        name: (
            max(1, round(groups * share)) if groups > 1 else 1,
            max(2, 2 * round(channels * share / 2)),
        )
        for name, (groups, channels) in parent.items()
    }


def row_of(
    trial: int, family: str = "vit", share: float | None = None, **values: Any
) -> dict[str, Any]:
    """A complete trial's row; accuracy rises with the cost, except for a ripple."""
    parent = PARENTS[family]
    share = 0.2 + 0.06 * trial if share is None else share
    return {
        "study": "digits", "trial": trial, "status": "complete", "arch_id": f"{trial + 0xA0:012x}",
        "model": "vit_tiny_patch16_224", "model_kwargs": "{}", "num_classes": 10, "image_size": 8,
        "architecture": encode_sizes(shrunk(parent, share), kinds_of(parent)),
        "gmacs": 7.994e-4 * share, "params": round(202058 * share),
        "parent_gmacs": 7.994e-4, "parent_params": 202058, "parent_top1": 98.889, "parent_val_top1": 97.9,
        "budget": f'{{"gmacs_share": {share + 0.01:.3f}}}', "forced": 0,
        "top1": 95 + 4 * share + (trial % 3), "top5": 99.9, "val_top1": 94 + 4 * share + (trial % 2),
        "top1_before_finetune": 93 + 4 * share, "search_epochs": 30, "finetune_epochs": 20,
        "seconds": 30.0 + 2 * (trial % 5), "device": "x86_64", "seed": trial, "dataset": "digits", "versions": "{}",
        "finished_at": datetime(2026, 11, 21, 10, trial, tzinfo=UTC),
        "hp.search.budget.gmacs_share": share + 0.01, "hp.search.one_hot_weight": 0.02 * (trial % 7),
        **values,
    }  # fmt: skip


def failed_row(trial: int, reason: str, **values: Any) -> dict[str, Any]:
    """The row of a trial that failed."""
    kept = (
        "study",
        "trial",
        "model",
        "model_kwargs",
        "num_classes",
        "seed",
        "dataset",
        "versions",
        "finished_at",
    )
    row = row_of(trial)
    swept = {name: value for name, value in row.items() if name.startswith("hp.")}
    return (
        {name: row[name] for name in kept}
        | swept
        | {"status": "failed", "reason": reason, **values}
    )


def decisions_of(family: str = "vit", share: float = 0.5, num: int = 8) -> list[dict[str, Any]]:
    """A history: losses fall, options are removed, sizes shrink; its first decision has the parent's sizes."""
    parent = PARENTS[family]
    records = []
    for index in range(num):
        done = index / (num - 1)
        sizes = parent if index == 0 else shrunk(parent, 1 - (1 - share) * done)
        records.append(
            {
                "epoch": 1 + index // 2, "step": 6 * (index + 1), "task": 0.5 + math.exp(-3 * done),
                "reconstruction": 0.6 - 0.1 * done, "one_hot": 27 - 29 * done, "importance_norm": 0.1 * (1 - done),
                "expected_cost": 0.4 + 0.1 * done, "importance_weight": 1 - 0.9 * done, "mask_ratio": 0.05 + 0.3 * done,
                "multiplier": 0.3 * done,
                "axes": [
                    {"axis": name, "groups": groups, "channels": channels, "options": max(1, round(9 * (1 - done))),
                     "expected": groups * channels * 0.9}
                    for name, (groups, channels) in sizes.items()
                ],
            }
        )  # fmt: skip
    return records


def epochs_of(num: int = 8) -> list[dict[str, Any]]:
    """A history of epochs: three in four are of the search, the others of the fine-tuning."""
    searched = 3 * num // 4
    records = []
    for index in range(num):
        done = index / (num - 1)
        phase = "search" if index < searched else "finetune"
        records.append(
            {
                "kind": "epoch", "phase": phase, "epoch": 1 + index - (0 if phase == "search" else searched),
                "step": 12 * (index + 1), "task": 2 - 1.5 * done, "lr": 1e-3 * (1 - 0.9 * done),
                "val_top1": 60 + 38 * done, "val_loss": 1.4 - 1.3 * done,
                **({"reconstruction": 0.6 - 0.1 * done} if phase == "search" else {}),
            }
        )  # fmt: skip
    return records


def add(folder: Path, row: dict[str, Any], family: str = "vit") -> None:
    """A trial's files; a failed one has no history."""
    if row["status"] == "complete":
        records = [*decisions_of(family), *epochs_of()]
        write_history(folder, row["trial"], records, study="digits")
    write_row(folder, row)


def journal_of(folder: Path, rows: list[dict[str, Any]], begun: int = 0) -> optuna.Study:
    """Optuna's journal of rows, and of trials that are still running."""
    config = load_study(folder / "study.yaml")
    directions = [objective.direction for objective in config.objectives]
    study = optuna.create_study(
        study_name=config.name, storage=storage_of(config, folder), directions=directions
    )
    ranges = {
        name: optuna.distributions.FloatDistribution(0, 1)
        for name in ("search.budget.gmacs_share", "search.one_hot_weight")
    }
    for row in rows:
        values = {name: row[f"hp.{name}"] for name in ranges}
        told = (
            [row[objective.metric] for objective in config.objectives]
            if row["status"] == "complete"
            else None
        )
        state = TrialState.FAIL if told is None else TrialState.COMPLETE
        study.add_trial(
            optuna.create_trial(params=values, distributions=ranges, values=told, state=state)
        )
    for _ in range(begun):
        study.ask(ranges)
    return study


def finished(folder: Path, family: str = "vit", num: int = 12) -> Path:
    """A study that has all its rows, of which two are failures."""
    begin(folder, num)
    rows = [row_of(trial, family) for trial in range(num - 2)]
    rows += [failed_row(trial, NAN) for trial in (num - 2, num - 1)]
    for row in rows:
        add(folder, row, family)
    journal_of(folder, rows)
    return folder


def of_kind(kind: str, folder: Path) -> Path:
    """A study of a model family, or an unusual one."""
    if kind in ("vit", "beit", "swin"):
        return finished(folder, kind)
    begin(folder)
    if kind == "failed":
        for trial in range(2):
            add(folder, failed_row(trial, HOSTILE))
    if kind == "unfinished":
        rows = [row_of(0), row_of(1)]
        for row in rows:
            add(folder, row)
        journal_of(folder, rows, begun=2)
    if kind == "elsewhere":
        (folder / "study.yaml").write_text(
            dump_study(load_study(DIGITS, ["sweep.storage=postgresql://h/n"]))
        )
        add(folder, row_of(0))
    if kind == "table":  # of a search without a study, or pulled
        finished(folder, num=4)
        (folder / "study.yaml").unlink()
        (folder / "journal.log").unlink()
        write_history(folder, 4, epochs_of()[:3], study="digits")  # a trial that runs
    if kind == "one":
        add(folder, row_of(0, latency_ms=1.5, latency_device="a CPU"))
    return folder


def written(folder: Path) -> str:
    """The address of a study's page."""
    if is_study(folder):
        config = study_of(folder)
        shown = contents(folder, config, read_journal(config, folder))
    else:
        shown = contents(folder, None, no_journal())
    write_page(shown, folder / "report.html")
    return (folder / "report.html").as_uri()

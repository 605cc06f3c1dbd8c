"""What the page shows of a study, as plain JSON values."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ofbnas.config import ChoiceParam, FloatParam, IntParam, StudyConfig
from ofbnas.config.storage import file_of
from ofbnas.errors import InputError
from ofbnas.front import COSTS, QUALITIES, front
from ofbnas.report.history import histories, parent_sizes
from ofbnas.schema import SWEPT
from ofbnas.study_file import load_study
from ofbnas.table import FOLDER, HISTORY_FOLDER, is_study, read_table, to_records

ASK_SERVER_EVERY = 5  # seconds
COLUMNS = [
    "trial", "status", "reason", "arch_id", "architecture", "gmacs", "params", "top1", "top5", "val_top1",
    "top1_before_finetune", "latency_ms", "latency_p90_ms", "parent_latency_ms", "latency_device", "seconds",
    "gpu_hours", "search_epochs", "finetune_epochs", "forced", "budget_note", "device", "seed", "finished_at",
]  # fmt: skip


def study_of(folder: Path) -> StudyConfig:
    """The study that a folder holds.

    Raises:
        InputError: It holds none.
    """
    if not is_study(folder):
        raise InputError(f"{folder}: is no study's folder; expected one with study.yaml, such as runs/digits")
    return load_study(folder / "study.yaml")


def contents(folder: Path, config: StudyConfig, journal: Mapping[str, Any]) -> dict[str, Any]:
    """Everything the page shows.

    Args:
        folder: The study's.
        config: The study.
        journal: What Optuna knows beyond the table: "begun", trials with number and swept values, and "importance".

    Returns:
        study: Names, objectives, trials wanted, and whether all are over.
        parent: The parent's costs and accuracy, null where no trial has told them.
        sizes: Sizes that architectures are drawn against, and whether they are the parent's.
        swept: Swept field to how its values lie: on a logarithm's scale, or a list of choices.
        fronts: "cost/quality" to the front's trials, for each pair that has values.
        trials: Rows of the table, then trials that have begun and have no row.
        history: Trial to its beats.
        importance: Of swept fields.
    """
    table = read_table(folder)
    rows, history = to_records(table), histories(folder)
    trials = [_trial(row) for row in rows]
    over = {row["trial"] for row in rows}
    begun = [trial for trial in journal["begun"] if trial["trial"] not in over]
    trials += [{"trial": trial["trial"], "status": "begun", "hp": trial["params"]} for trial in begun]
    return {
        "study": {
            "name": config.name,
            "folder": str(folder),
            "model": config.model.name,
            "dataset": config.data.name,
            "objectives": [objective.model_dump() for objective in config.objectives],
            "sampler": config.sweep.sampler,
            "wanted": config.sweep.n_trials,
            "finished": not begun and len(rows) >= config.sweep.n_trials,
        },
        "parent": _parent(table),
        "sizes": _sizes([row["architecture"] for row in rows if row.get("architecture")], history),
        "swept": {name: _swept(param) for name, param in config.sweep.params.items()},
        "fronts": _fronts(table),
        "trials": trials,
        "history": {str(trial): beats for trial, beats in history.items()},
        "importance": journal["importance"],
    }


def stamp(folder: Path) -> list[tuple[str, int, int]]:
    """What changes whenever the contents do: name, size and time of all that they are read from.

    A database on a server has none of these; that its stamp is another one every few seconds stands for them.
    """
    kept = file_of(study_of(folder).sweep.storage, folder)
    places = [folder / "study.yaml", *([] if kept is None else [kept])]
    places += [file for part in (FOLDER, HISTORY_FOLDER) for file in sorted((folder / part).glob("*.parquet"))]
    found = [(place.name, place.stat()) for place in places if place.is_file()]
    now = [] if kept is not None else [("server", 0, int(time.monotonic() // ASK_SERVER_EVERY))]
    return now + [(name, state.st_size, state.st_mtime_ns) for name, state in found]


def _trial(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the table, without what is missing."""
    found = {name: row[name] for name in COLUMNS if row.get(name) is not None}
    swept = {name.removeprefix(SWEPT): value for name, value in row.items() if name.startswith(SWEPT)}
    if (share := _budget_share(row)) is not None:
        found["budget_share"] = share
    return {**found, "hp": {name: value for name, value in swept.items() if value is not None}}


def _budget_share(row: Mapping[str, Any]) -> float | None:
    """The budget as a share of the parent's cost, None where the row does not tell.

    What a parent costs by the published formula is not in the table.
    """
    budget: dict[str, Any] = json.loads(row["budget"]) if row.get("budget") else {}
    for name in ("gmacs", "params"):
        if share := budget.get(f"{name}_share"):
            return float(share)
        counted = name == "params" or budget.get("count", "exact") == "exact"
        if budget.get(name) and row.get(f"parent_{name}") and counted:
            return float(budget[name] / row[f"parent_{name}"])
    return None


def _parent(table: pd.DataFrame) -> dict[str, float | None]:
    """The parent's costs and accuracy."""
    found = {}
    for name in ("gmacs", "params", "top1"):
        values = table[f"parent_{name}"].dropna()
        found[name] = float(values.iloc[0]) if len(values) else None
    return found


def _sizes(
    architectures: Sequence[Mapping[str, Any]], history: Mapping[int, Mapping[str, Any]]
) -> dict[str, Any] | None:
    """Sizes to draw architectures against: the parent's where a history tells them, else the largest found."""
    if not architectures:
        return None
    first = architectures[0]
    for beats in history.values():
        sizes = parent_sizes(beats)
        if _form(sizes) == _form(first):
            return {**sizes, "parent": True}
    blocks = [
        {
            name: None if block[name] is None else max(found["blocks"][index][name] for found in architectures)
            for name in block
        }
        for index, block in enumerate(first["blocks"])
    ]
    embed = [max(found["embed"][stage] for found in architectures) for stage in range(len(first["embed"]))]
    return {"embed": embed, "blocks": blocks, "parent": False}


def _form(sizes: Mapping[str, Any]) -> tuple[Any, ...]:
    """What architectures of one model have in common: their stages and blocks, and what these have."""
    blocks = [tuple(block.get(name) is not None for name in ("heads", "head_size", "mlp")) for block in sizes["blocks"]]
    return len(sizes["embed"]), blocks


def _swept(param: IntParam | FloatParam | ChoiceParam) -> dict[str, Any]:
    """How the values of a swept field lie."""
    if isinstance(param, ChoiceParam):
        return {"choices": list(param.choices)}
    return {"log": param.log, "low": param.low, "high": param.high}


def _fronts(table: pd.DataFrame) -> dict[str, list[int]]:
    """The front's trials for each cost and quality that some trial has."""
    known = [name for name in (*COSTS, *QUALITIES) if name in table.columns and table[name].notna().any()]
    fronts = {}
    for x in COSTS:
        for y in QUALITIES:
            if x in known and y in known:
                fronts[f"{x}/{y}"] = [int(trial) for trial in front(table, x=x, y=y)["trial"]]
    return fronts

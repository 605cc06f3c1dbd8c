"""What the page shows of a study, as plain JSON values."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofbnas.config import ChoiceParam, FloatParam, IntParam, StudyConfig
from ofbnas.config.fields import LIMITS
from ofbnas.config.model import label_of
from ofbnas.config.storage import file_of
from ofbnas.config.study_file import dump_changed, load_study
from ofbnas.errors import InputError
from ofbnas.files.documents import parse_json
from ofbnas.files.untrusted import check_regular, visible
from ofbnas.study.report.history import histories, parent_sizes
from ofbnas.study.report.hypervolumes import hypervolumes
from ofbnas.table.columns import COLUMNS, COSTS, QUALITIES, SWEPT, comparable
from ofbnas.table.latency import with_latencies
from ofbnas.table.layout import FOLDER, HISTORY_FOLDER, LATENCY, is_study
from ofbnas.table.query import to_records
from ofbnas.table.store import read_table
from ofbnas.table.trust import table_warnings

if TYPE_CHECKING:
    import pandas as pd

ASK_SERVER_EVERY = 5  # seconds
PARTS = ("heads", "head_size", "mlp")  # of a block


def study_of(folder: Path) -> StudyConfig:
    """The study that a folder holds.

    Raises:
        InputError: It is not a study's folder, or its study.yaml cannot be read.
    """
    check_regular(folder / "study.yaml")
    if not is_study(folder):
        raise InputError(
            f"{folder}: is not a study's folder; expected one with study.yaml, such as runs/digits"
        )
    return load_study(folder / "study.yaml")


def contents(
    folder: Path,
    config: StudyConfig,
    journal: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything the page shows.

    Args:
        folder: The study's.
        config: The study.
        journal: What Optuna knows beyond the table, as
            `ofbnas.study.tuning.journal.read_journal` gives it.

    Returns:
        study: Names, objectives, the number of trials wanted, and whether all are finished.
        settings: YAML of those that are not the defaults.
        parent: The parent's costs and accuracy, null where no row has them.
        sizes: Sizes that architectures are drawn against, and whether they are the parent's.
        swept: Swept field to its range and whether that is logarithmic, or to its choices.
        columns: Cost or quality to its role, names and units.
        warnings: Quality to what should be known about a front that was selected by it.
        fronts: "cost/quality" to the front's trials, for each pair that has values.
        hypervolumes: Trials with the share of the possible hypervolume that the front of the
            objectives has after each.
        trials: Rows of the table, then running trials, which have no row yet.
        history: Trial to its decisions, as columns.
        importance: Of swept fields, for each objective.
        left_out: What the page lacks because a database was not opened, or null.
    """
    # Where `ofbnas bench` has timed the networks, its newest times replace those of trials.
    table = with_latencies(read_table(folder), folder)
    rows = to_records(table)
    history = histories(folder)
    architectures = [row["architecture"] for row in rows if row.get("architecture")]

    trials = [_trial(row) for row in rows]

    # A killed driver may leave a trial running in Optuna's study although it has its row.
    with_row = {row["trial"] for row in rows}
    running = []
    for trial in journal["running"]:
        if trial["trial"] not in with_row:
            running.append(
                {
                    "trial": trial["trial"],
                    "status": "running",
                    "hp": trial["params"],
                }
            )

    wanted = config.sweep.n_trials
    return {
        "study": {
            "name": config.name,
            "folder": str(folder),
            "model": config.model.name,
            "dataset": label_of(config.data),
            "objectives": [objective.model_dump() for objective in config.objectives],
            "sampler": config.sweep.sampler,
            "wanted": wanted,
            "finished": not running and len(rows) >= wanted,
        },
        "settings": dump_changed(config),
        "parent": _parent(table),
        "sizes": _sizes(architectures, history),
        "swept": {name: _swept(param) for name, param in config.sweep.params.items()},
        "columns": _columns(),
        "warnings": {y: table_warnings(table, y) for y in _known(table, QUALITIES)},
        "fronts": _fronts(table),
        "hypervolumes": hypervolumes(table, [goal.metric for goal in config.objectives]),
        "trials": trials + running,
        "history": {str(trial): decisions for trial, decisions in history.items()},
        "importance": journal["importance"],
        "left_out": journal["left_out"],
    }


def stamp(folder: Path, *, connect: bool = False) -> list[tuple[str, int, int]]:
    """What changes whenever the contents do: name, size and time of every file they come from.

    A database on a server has no such file; a number that changes every few seconds stands for it.

    Args:
        folder: The study's.
        connect: Whether a storage outside of the folder is read, too.
    """
    storage = study_of(folder).sweep.storage if connect else None
    storage_file = file_of(storage, folder)
    paths = [folder / "study.yaml", folder / LATENCY]
    stamps = []
    if storage_file is not None:
        paths.append(storage_file)
    else:
        period = int(time.monotonic() // ASK_SERVER_EVERY)
        stamps.append(("server", 0, period))
    for part in (FOLDER, HISTORY_FOLDER):
        paths += sorted((folder / part).glob("*.parquet"))

    for path in paths:
        if path.is_file():
            status = path.stat()
            stamps.append((path.name, status.st_size, status.st_mtime_ns))
    return stamps


def _trial(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the table, without missing values."""
    trial = {}
    for name, column in COLUMNS.items():
        value = row.get(name)
        if column.in_report and value is not None:
            trial[name] = value

    share = _budget_share(row)
    if share is not None:
        trial["budget_share"] = share

    swept = {}
    for name, value in row.items():
        if name.startswith(SWEPT) and value is not None:
            swept[name.removeprefix(SWEPT)] = value
    trial["hp"] = swept
    return trial


def _budget_share(row: Mapping[str, Any]) -> float | None:
    """The budget as a share of the parent's cost, None where the row does not tell.

    A budget may be in GMACs as the reference implementation counts them. The table does not have
    the parent's cost by that formula, so such a budget has no share.
    """
    budget = _budget(row)
    if budget.get("latency_share"):
        return float(budget["latency_share"])
    for name in ("gmacs", "params"):
        share = budget.get(f"{name}_share")
        if share:
            return float(share)
        amount = budget.get(name)
        parent = row.get(f"parent_{name}")
        is_exact = name == "params" or budget.get("count", "exact") == "exact"
        if amount and parent and is_exact:
            return float(amount / parent)
    return None


def _budget(row: Mapping[str, Any]) -> dict[str, Any]:
    """The budget of a row, empty where it has none.

    Raises:
        InputError: It is not a budget.
    """
    if row.get("budget") is None:
        return {}
    where = f"{row['study']}, trial {row['trial']}: budget"
    budget = parse_json(row["budget"], where)
    if isinstance(budget, dict):
        amounts = [budget.get(name, 0) for name in LIMITS]
        if all(isinstance(amount, int | float) for amount in amounts):
            return budget
    raise InputError(
        f"{visible(where)}: expected a JSON object, with numbers for {', '.join(LIMITS)}"
    )


def _parent(table: pd.DataFrame) -> dict[str, float | None]:
    """The parent's costs and accuracy."""
    parent: dict[str, float | None] = {}
    for name in ("gmacs", "params", "top1", "val_top1"):
        column = f"parent_{name}"
        parent[name] = None
        if column in _known(table, [column]):
            parent[name] = float(table[column].dropna().iloc[0])
    return parent


def _known(table: pd.DataFrame, columns: Iterable[str]) -> list[str]:
    """Those of some columns in which a row has a value."""
    return [name for name in columns if name in table.columns and table[name].notna().any()]


def _sizes(
    architectures: Sequence[Mapping[str, Any]],
    history: Mapping[int, Mapping[str, Any]],
) -> dict[str, Any] | None:
    """Sizes to draw architectures against.

    They are the parent's where a history has them, else the largest that were found.
    """
    if not architectures:
        return None
    first = architectures[0]
    for decisions in history.values():
        sizes = parent_sizes(decisions)
        if _form(sizes) == _form(first):
            return {**sizes, "parent": True}

    # A table from somebody else may mix models: only what can be compared is drawn together.
    alike = [sizes for sizes in architectures if _form(sizes) == _form(first)]
    largest = _largest_sizes(alike)
    return {**largest, "parent": False}


def _largest_sizes(architectures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The largest of each size over architectures of one form."""
    first = architectures[0]
    embed = []
    for stage in range(len(first["embed"])):
        embed.append(max(sizes["embed"][stage] for sizes in architectures))

    blocks = []
    for index, block in enumerate(first["blocks"]):
        largest = {}
        for name, size in block.items():
            largest[name] = size
            # A part that a block does not have is null in all architectures of one form.
            if size is not None:
                largest[name] = max(sizes["blocks"][index][name] for sizes in architectures)
        blocks.append(largest)
    return {"embed": embed, "blocks": blocks}


def _form(sizes: Mapping[str, Any]) -> tuple[int, list[list[bool]]]:
    """What architectures of one model share: their number of embeddings, and each block's parts."""
    blocks = []
    for block in sizes["blocks"]:
        blocks.append([block.get(part) is not None for part in PARTS])
    return len(sizes["embed"]), blocks


def _swept(param: IntParam | FloatParam | ChoiceParam) -> dict[str, Any]:
    """A swept field's choices, or its range and whether that is logarithmic."""
    if isinstance(param, ChoiceParam):
        return {"choices": list(param.choices)}
    return {"log": param.log, "low": param.low, "high": param.high}


def _columns() -> dict[str, Any]:
    """What the page has to know of costs and qualities."""
    return {
        name: {
            "role": column.role,
            "label": column.label,
            "short": column.short,
            "stored": column.units.stored,
            "units": column.units.steps,
            "unit": column.units.name,
        }
        for name, column in comparable().items()
    }


def _fronts(table: pd.DataFrame) -> dict[str, list[int]]:
    """The front's trials for each pair of a cost and a quality that some trial has."""
    # Imported here, since it imports pandas, which commands that only read settings do without.
    from ofbnas.table.front import front

    fronts = {}
    for x in _known(table, COSTS):
        for y in _known(table, QUALITIES):
            best = front(table, x=x, y=y)
            fronts[f"{x}/{y}"] = [int(trial) for trial in best["trial"]]
    return fronts

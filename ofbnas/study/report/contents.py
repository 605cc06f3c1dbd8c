"""What the page shows of a study or a table, as plain JSON values."""

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
from ofbnas.study.report.history import Histories, histories
from ofbnas.study.report.hypervolumes import hypervolumes
from ofbnas.study.report.sizes import sizes_of
from ofbnas.table.columns import COLUMNS, COSTS, QUALITIES, SWEPT, comparable
from ofbnas.table.latency import with_latencies
from ofbnas.table.layout import (
    COMPACT_HISTORY,
    HISTORY_FOLDER,
    LATENCY,
    home,
    is_study,
    table_files,
    trial_files,
)  # fmt: skip
from ofbnas.table.query import to_records
from ofbnas.table.store import read_table
from ofbnas.table.trust import table_warnings

if TYPE_CHECKING:
    import pandas as pd

ASK_SERVER_EVERY = 5  # seconds
SHOWN = 3  # models or data sets of a table that are named


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
    source: Path,
    config: StudyConfig | None,
    journal: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything the page shows.

    Args:
        source: A study's folder, or any other table.
        config: The study; None for a table without one.
        journal: What Optuna knows beyond the table, as
            `ofbnas.study.tuning.journal.read_journal` gives it.

    Returns:
        study: Names, objectives, the number of trials wanted, and whether all are finished.
        settings: YAML of those that are not the defaults, or null.
        parent: The parent's costs and accuracy, null where no row has them.
        sizes: Sizes that architectures are drawn against, and whether they are the parent's.
        swept: Swept field to its range and whether that is logarithmic, or to its choices.
        columns: Cost or quality to its role, names and units.
        warnings: Quality to what should be known about a front that was selected by it.
        fronts: "cost/quality" to the front's trials, for each pair that has values.
        hypervolumes: Trials with the share of the possible hypervolume that the front of the
            objectives has after each.
        trials: Rows of the table, then running trials, which have no row yet.
        decisions: Trial to the decisions of its search, as columns.
        epochs: Trial to its epochs, as columns.
        importance: Of swept fields, for each objective.
        left_out: What the page lacks and why, or null.
    """
    # Where `ofbnas bench` has timed the networks, its newest times replace those of trials.
    table = with_latencies(read_table(source), source)
    left_out = [journal["left_out"]]
    history = histories(source)
    if table["trial"].duplicated().any():
        table["trial"] = range(len(table))
        history = Histories({}, {})
        left_out.append("Trials of several tables are numbered anew here, and have no histories.")
    if _num_parents(table) > 1:
        left_out.append("The networks are of several parents, which are not shown.")
    rows = to_records(table)
    architectures = [row["architecture"] for row in rows if row.get("architecture")]

    trials = [_trial(row) for row in rows]

    # A killed driver may leave a trial running in Optuna's study although it has its row. Without
    # such a study, a trial that runs is known by its history, which lies in the table's folder.
    begun = {*history.epochs, *history.decisions} if source.is_dir() else set()
    params: dict[int, dict[str, Any]] = {trial: {} for trial in begun}
    params |= {trial["trial"]: trial["params"] for trial in journal["running"]}
    with_row = {row["trial"] for row in rows}
    running = [
        {"trial": trial, "status": "running", "hp": params[trial]}
        for trial in sorted(params)
        if trial not in with_row
    ]

    about = _of_table(table, source) if config is None else _of_study(config)
    wanted = about["wanted"] or len(rows) + len(running)
    return {
        "study": {
            **about,
            "folder": str(source),
            "wanted": wanted,
            "finished": not running and len(rows) >= wanted,
        },
        "settings": None if config is None else dump_changed(config),
        "parent": _parent(table),
        "sizes": sizes_of(architectures, history.decisions),
        "swept": {} if config is None else _ranges(config),
        "columns": _columns(),
        "warnings": {y: table_warnings(table, y) for y in _known(table, QUALITIES)},
        "fronts": _fronts(table),
        "hypervolumes": hypervolumes(table, [goal["metric"] for goal in about["objectives"]]),
        "trials": trials + running,
        "decisions": {str(trial): columns for trial, columns in history.decisions.items()},
        "epochs": {str(trial): columns for trial, columns in history.epochs.items()},
        "importance": journal["importance"],
        "left_out": " ".join(filter(None, left_out)) or None,
    }


def _of_study(config: StudyConfig) -> dict[str, Any]:
    """What the page says of a study."""
    return {
        "name": config.name,
        "model": config.model.name,
        "dataset": label_of(config.data),
        "objectives": [objective.model_dump() for objective in config.objectives],
        "sampler": config.sweep.sampler,
        "wanted": config.sweep.n_trials,
    }


def _of_table(table: pd.DataFrame, source: Path) -> dict[str, Any]:
    """What the page says of a table without a study, which does not say what was wanted."""
    studies = _values(table, "study")
    return {
        "name": studies[0] if len(studies) == 1 else source.resolve().stem,
        "model": _some(_values(table, "model")),
        "dataset": _some(_values(table, "dataset")),
        "objectives": [],
        "sampler": None,
        "wanted": None,
    }


def _values(table: pd.DataFrame, column: str) -> list[str]:
    """The texts that a column has, each once."""
    return [str(value) for value in table[column].dropna().unique()]


def _some(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    shown = list(names[:SHOWN])
    if len(names) > SHOWN:
        shown.append(f"{len(names) - SHOWN} more")
    return ", ".join(shown) or "unknown"


def _num_parents(table: pd.DataFrame) -> int:
    """Number of different parents of a table's rows."""
    return len(table[["model", "model_kwargs"]].drop_duplicates())


def stamp(source: Path, *, connect: bool = False) -> list[tuple[str, int, int]]:
    """What changes whenever the contents do: name, size and time of every file they come from.

    A database on a server has no such file; a number that changes every few seconds stands for it.

    Args:
        source: A study's folder, or any other table.
        connect: Whether a storage outside of the folder is read, too.
    """
    folder = home(source)
    paths = [folder / "study.yaml", folder / LATENCY, folder / COMPACT_HISTORY]
    stamps = []
    if is_study(folder):
        storage = study_of(folder).sweep.storage if connect else None
        storage_file = file_of(storage, folder)
        if storage_file is not None:
            paths.append(storage_file)
        else:
            period = int(time.monotonic() // ASK_SERVER_EVERY)
            stamps.append(("server", 0, period))
    paths += table_files(source)
    paths += trial_files(folder / HISTORY_FOLDER)

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
    """The parent's costs and accuracy, where there is one parent."""
    parent: dict[str, float | None] = {}
    has_one = _num_parents(table) == 1
    for name in ("gmacs", "params", "top1", "val_top1"):
        column = f"parent_{name}"
        parent[name] = None
        if has_one and column in _known(table, [column]):
            parent[name] = float(table[column].dropna().iloc[0])
    return parent


def _known(table: pd.DataFrame, columns: Iterable[str]) -> list[str]:
    """Those of some columns in which a row has a value."""
    return [name for name in columns if name in table.columns and table[name].notna().any()]


def _ranges(config: StudyConfig) -> dict[str, Any]:
    """Swept fields, and what they may be."""
    return {name: _swept(param) for name, param in config.sweep.params.items()}


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

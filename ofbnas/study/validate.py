"""Whether an architecture table is correct: ranges, ids, sizes, costs, weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import safe_open

from ofbnas.errors import InputError
from ofbnas.files.documents import parse_json
from ofbnas.files.weights import file_sha256
from ofbnas.models.architecture import Architecture, decode_sizes
from ofbnas.models.axes import axes as axes_of
from ofbnas.models.axes import check_sizes
from ofbnas.models.cost import cost_of
from ofbnas.models.create import on_meta
from ofbnas.models.subnet import check_fit
from ofbnas.table import query, store
from ofbnas.table.column import Column
from ofbnas.table.columns import COLUMNS
from ofbnas.table.layout import weights_file

MAX_JSON = 100_000  # characters
MAX_PARENTS = 500  # different ones in a table; each takes up to a few seconds
COST_TOLERANCE = 1e-9  # relative; costs are sums of products, rounded in another order


@dataclass(frozen=True)
class Problem:
    """Something in a table that is not correct.

    Attributes:
        study: The row's study, or None where the problem is not of one row.
        trial: The row's trial.
        what: What is wrong.
    """

    study: str | None
    trial: int | None
    what: str

    def __str__(self) -> str:
        if self.study is None:
            return self.what
        return f"{self.study}, trial {self.trial}: {self.what}"


@dataclass
class Checked:
    """What was checked, and what was found.

    Attributes:
        rows: Number of rows.
        architectures: Number of different architectures, each made without allocating it.
        weights: Number of files of weights whose hash and shapes are correct.
        absent: Number of rows that name weights that are not here.
        problems: What is not correct.
    """

    rows: int = 0
    architectures: int = 0
    weights: int = 0
    absent: int = 0
    problems: list[Problem] = field(default_factory=list)


def validate(source: Path) -> Checked:
    """Check a table, which may come from a stranger.

    Nothing of it is executed, and no size is allocated before it is checked.

    Raises:
        InputError: It is not an architecture table at all.
    """
    rows = store.read_table(source)
    checked = Checked(rows=len(rows))
    checked.problems += _ranges(rows)
    checked.problems += _status(rows)
    checked.problems += _of_pruned_trials(rows)
    checked.problems += _json_columns(rows)
    checked.problems += _duplicates(rows)

    parents: _Parents = {}
    with_id = rows[rows["arch_id"].notna()]
    checked.architectures = with_id["arch_id"].nunique()
    for _, row in _distinct(with_id).iterrows():
        for what in _architecture(row, parents):
            checked.problems.append(_problem(row, what))

    with_weights = with_id[with_id["weights"].notna()]
    for _, row in with_weights.iterrows():
        try:
            file = weights_file(source, row["weights"])
            if file is None:
                checked.absent += 1
            else:
                _check_weights(file, row, parents)
                checked.weights += 1
        except InputError as error:
            problem = _problem(row, str(error))
            checked.problems.append(problem)
    return checked


def _distinct(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows without those that claim the same of an architecture as a row before them."""
    sizes = rows["architecture"].map(query.canonical)
    claims = rows.assign(architecture=sizes)
    is_repeated = claims.duplicated(
        ["arch_id", "model", "model_kwargs", "architecture", "gmacs", "params"]
    )
    return rows[~is_repeated]


def _problem(row: pd.Series[Any], what: str) -> Problem:
    """A problem of a row."""
    study = str(row["study"])
    trial = int(row["trial"])
    return Problem(study, trial, what)


class _Parent:
    """A parent on the meta device, and what its axes cost."""

    def __init__(self, model: str, kwargs: str) -> None:
        self.kwargs = _json(kwargs)
        self.meta = on_meta(model, self.kwargs)
        self.axes = axes_of(self.meta.model, space={})
        self.kinds = {axis.name: axis.kind for axis in self.axes}
        self.sizes = {axis.name: axis.size for axis in self.axes}
        self.macs = cost_of(self.meta.model, self.axes, "macs")
        self.params = cost_of(self.meta.model, self.axes, "params")


# The parent for each model and its arguments, or why it could not be made.
_Parents = dict[tuple[str, str], _Parent | InputError]


def _parent(row: pd.Series[Any], parents: _Parents) -> _Parent:
    """A row's parent, made once for all rows that have it.

    Args:
        row: The row.
        parents: Those made before; this parent, or the reason why there is none, is added.

    Raises:
        InputError: It cannot be made.
    """
    key = row["model"], row["model_kwargs"]
    if key not in parents:
        if len(parents) == MAX_PARENTS:
            raise InputError(
                f"was not checked, as the table has more than {MAX_PARENTS} different parents: "
                "split it"
            )
        try:
            parents[key] = _Parent(*key)
        except InputError as error:
            parents[key] = error
    parent = parents[key]
    if isinstance(parent, InputError):
        raise InputError(str(parent))
    return parent


def _architecture(row: pd.Series[Any], parents: _Parents) -> Iterator[str]:
    """What is wrong with a row's architecture: it cannot be made, its id or its costs differ."""
    try:
        parent = _parent(row, parents)
        sizes = decode_sizes(row["architecture"], parent.kinds, parent.sizes)
        check_sizes(parent.axes, sizes)
    except InputError as error:
        yield str(error)
        return

    arch_id = Architecture(row["model"], parent.kwargs, sizes).id
    if arch_id != row["arch_id"]:
        yield f"has the id {row['arch_id']}, but its model and sizes make {arch_id}"

    ordered = [sizes[axis.name] for axis in parent.axes]
    costs = {
        "gmacs": parent.macs.of(ordered) / 1e9,
        "params": parent.params.of(ordered),
    }
    for column, actual in costs.items():
        stated = row[column]
        if pd.notna(stated) and not np.isclose(float(stated), actual, rtol=COST_TOLERANCE):
            yield f"says {column} {stated:g}, but its sizes cost {actual:g}"


def _check_weights(weights: Path, row: pd.Series[Any], parents: _Parents) -> None:
    """Check that weights are those recorded, fit the architecture, and are finite.

    Raises:
        InputError: They are not, or do not.
    """
    sha256 = file_sha256(weights)
    recorded = row["weights_sha256"]
    if sha256 != recorded:
        raise InputError(f"its weights have SHA-256 {sha256}, but the row records {recorded}")
    parent = _parent(row, parents)
    sizes = decode_sizes(row["architecture"], parent.kinds, parent.sizes)
    check_fit(parent.meta, parent.axes, sizes, weights)
    _check_finite(weights)


def _check_finite(weights: Path) -> None:
    """Check that a .safetensors file has finite values only, one tensor after the other.

    Raises:
        InputError: A tensor has NaN or infinite values.
    """
    with safe_open(weights, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118
            values = file.get_tensor(name)
            num_values = values.numel()
            not_finite = num_values - int(values.isfinite().sum())
            if not_finite:
                raise InputError(
                    f"its weights have {not_finite:,} of {num_values:,} values of {name} "
                    "that are not finite"
                )


def _ranges(rows: pd.DataFrame) -> Iterator[Problem]:
    """Values outside of their column's range."""
    for column in COLUMNS.values():
        if column.low is None:
            continue
        expected = _range(column)
        is_outside = _is_outside(rows[column.name], column)
        for row in _where(rows, is_outside):
            value = row[column.name]
            yield _problem(row, f"has {column.name} {value}, expected {expected}")


def _is_outside(values: pd.Series[Any], column: Column) -> NDArray[np.bool_]:
    """For each value, whether it is known but not in the column's range."""
    # pandas' nullable type first: it takes columns of any numbers, with nulls of any kind.
    numbers = values.astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan)
    is_missing = np.isnan(numbers)

    assert column.low is not None
    lowest = column.low
    if column.low_excluded:
        lowest = np.nextafter(lowest, np.inf)  # the smallest number above it
    highest = np.inf if column.high is None else column.high
    is_inside = (numbers >= lowest) & (numbers <= highest)
    return ~is_missing & ~(is_inside & np.isfinite(numbers))


def _status(rows: pd.DataFrame) -> Iterator[Problem]:
    """Rows with an unknown status."""
    is_known = rows["status"].isin(["complete", "failed", "pruned"])
    for row in _where(rows, ~is_known):
        given = row["status"]
        yield _problem(row, f"has status {given!r}, expected complete, failed or pruned")


def _json_columns(rows: pd.DataFrame) -> Iterator[Problem]:
    """Texts that are not JSON objects, in columns of them."""
    for column in COLUMNS.values():
        if not column.json:
            continue
        is_invalid = rows[column.name].map(_is_invalid_json)
        for row in _where(rows, is_invalid):
            yield _problem(row, f"has {column.name} that is not a JSON object")


def _of_pruned_trials(rows: pd.DataFrame) -> Iterator[Problem]:
    """What the rows of pruned trials may not have, and what they must have."""
    is_pruned = rows["status"] == "pruned"
    for column in COLUMNS.values():
        if not column.of_network:
            continue
        has_value = rows[column.name].notna()
        for row in _where(rows, is_pruned & has_value):
            yield _problem(row, f"was pruned, so it cannot have {column.name}")

    epochs = rows["search_epochs"].fillna(0)
    was_searched = (epochs > 0).astype(bool)
    for row in _where(rows, is_pruned & ~was_searched):
        yield _problem(row, "was pruned, but search_epochs does not say when")


def _range(column: Column) -> str:
    """The values that a column may have, in words."""
    if column.high is not None:
        return f"{column.low:g} to {column.high:g}"
    if column.low_excluded:
        return f"above {column.low:g}"
    return f"{column.low:g} or more"


def _duplicates(rows: pd.DataFrame) -> Iterator[Problem]:
    """Trials that are there twice, and ids that stand for several architectures."""
    # In a merged table, several studies of one name differ in their origin.
    key = [name for name in ("study", "trial", "origin") if name in rows.columns]
    is_repeated = rows.duplicated(key)
    for row in _where(rows, is_repeated):
        yield _problem(row, "is there twice")
    for arch_id, count in query.ambiguous_ids(rows).items():
        yield Problem(None, None, f"architecture {arch_id} stands for {count} different ones")


def _where(rows: pd.DataFrame, mask: Any) -> Iterator[pd.Series[Any]]:
    """The rows that a mask selects, [rows]."""
    selected = rows[np.asarray(mask, dtype=bool)]
    for _, row in selected.iterrows():
        yield row


def _is_invalid_json(text: Any) -> bool:
    """Whether a value is a text, but not of a JSON object."""
    if not isinstance(text, str):
        return False
    try:
        _json(text)
    except InputError:
        return True
    return False


def _json(text: str) -> dict[str, Any]:
    """The JSON object of a text that may come from a stranger.

    Raises:
        InputError: It is not a JSON object, or too long.
    """
    try:
        value = parse_json(text, "its value", MAX_JSON)
    except InputError:
        value = None  # the message below says what was expected
    if not isinstance(value, dict):
        raise InputError(
            f"expected a JSON object of at most {MAX_JSON:,} characters, found {text[:40]!r}"
        )
    return value

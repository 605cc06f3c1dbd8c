"""The histories of a table's trials: a row per decision and per epoch, in Parquet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from ofbnas.errors import InputError
from ofbnas.table import parquet
from ofbnas.table.layout import (
    COMPACT_HISTORY,
    HISTORY_FOLDER,
    home,
    table_files,
    trial_file,
    trial_files,
)  # fmt: skip
from ofbnas.table.schema import HISTORY_SCHEMA, versioned
from ofbnas.table.store import to_frame

if TYPE_CHECKING:
    import pandas as pd

REQUIRED = [*(field.name for field in HISTORY_SCHEMA if not field.nullable), "axes"]
# By name, a search comes after its fine-tuning, and a decision before the epoch that it ends.
ORDER = [
    ("trial", "ascending"),
    ("phase", "descending"),
    ("step", "ascending"),
    ("kind", "ascending"),
]
# Of rows that were written before there were any of epochs.
BEFORE = {"kind": "decision", "phase": "search"}


def write_history(
    folder: Path,
    trial: int,
    records: Sequence[Mapping[str, Any]],
    *,
    study: str,
) -> Path:
    """Write a trial's history; an earlier one is replaced.

    Args:
        folder: Of the table.
        trial: Number of the trial.
        records: Its rows, in order: of decisions and of epochs.
        study: Name of the study, as the trial's row has it.

    Returns:
        The file.
    """
    rows = []
    for record in records:
        rows.append({"study": study, "trial": trial, **record})
    table = pa.Table.from_pylist(rows, schema=versioned(HISTORY_SCHEMA))
    file = folder / HISTORY_FOLDER / trial_file(trial)
    return parquet.write(table, file)


def read_history(source: Path | str) -> pd.DataFrame:
    """The histories of a table's trials as a data frame, in the order in which they happened.

    Args:
        source: A study's folder or a shared table's; a trial that is running has one, too.

    Returns:
        Rows of two kinds for each trial: one per decision of its search, and one per epoch of its
        search and of its fine-tuning, with the columns that docs/table.md explains.

    Raises:
        InputError: There is no such table, it has no histories, or a file is not a history.
    """
    table = history_arrow(Path(source))
    if table is None:
        raise InputError(
            f"{source}: holds no histories; expected a study's folder with {HISTORY_FOLDER}/, or a "
            f"table with {COMPACT_HISTORY}"
        )
    return to_frame(table.sort_by(ORDER))


def history_arrow(source: Path) -> pa.Table | None:
    """The histories of all trials in one table, None if there are none.

    Raises:
        InputError: There is no such table, or a file is not a history.
    """
    folder = home(source)
    files = trial_files(folder / HISTORY_FOLDER)
    compact = folder / COMPACT_HISTORY
    if not files and compact.is_file():
        files = [compact]
    if not files:
        table_files(source)  # refuses what is no table
        return None
    parts = [parquet.read(file, required=REQUIRED) for file in files]
    table = pa.concat_tables(parts, promote_options="permissive")
    for name, value in BEFORE.items():
        try:
            table = _filled(table, name, value)
        except pa.ArrowException:
            given = table.schema.field(name).type
            raise InputError(
                f"{source}: column {name} of its histories is {given}, expected text"
            ) from None
    return table


def _filled(table: pa.Table, name: str, value: str) -> pa.Table:
    """A table with a text in place of what is missing in a column, or in place of the column."""
    if name not in table.column_names:
        return table.append_column(name, pa.array([value] * len(table)))
    index = table.column_names.index(name)
    return table.set_column(index, name, pc.fill_null(table[name], value))

"""The architecture table: one row per finished or failed trial, in Parquet; no pickle, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from ofbnas.errors import InputError, one_line
from ofbnas.files.untrusted import check_arch_id
from ofbnas.table import parquet
from ofbnas.table.columns import SWEPT, Row, required_columns
from ofbnas.table.layout import FOLDER, table_files, trial_file, trial_files
from ofbnas.table.parquet import Filters
from ofbnas.table.schema import SCHEMA, VERSION, versioned

if TYPE_CHECKING:
    import pandas as pd


def write_row(study: Path, row: Row) -> Path:
    """Add a trial's row to a study's table; the row's file appears whole or not at all.

    Args:
        study: The study's folder.
        row: The row.

    Returns:
        The row's file.
    """
    fields = list(SCHEMA)
    arrays = []
    for field in fields:
        value = getattr(row, field.name)
        arrays.append(pa.array([value], type=field.type))
    for name, value in row.swept.items():
        array = pa.array([value])  # its type is that of the value
        arrays.append(array)
        column = f"{SWEPT}{name}"
        fields.append(pa.field(column, array.type))

    table = pa.Table.from_arrays(arrays, schema=versioned(fields))
    return parquet.write(table, _row_file(study, row.trial))


def write_table(frame: pd.DataFrame, path: Path) -> Path:
    """Write a whole table into one file.

    Columns of the schema come first and get its types; any others follow.
    """
    # pandas' own metadata is dropped: it says how the frame was made, not what the table is.
    given = pa.Table.from_pandas(frame, preserve_index=False)
    table = _typed(path, given.replace_schema_metadata(None))

    fields = [field for field in SCHEMA if field.name in table.column_names]
    for field in table.schema:
        if field.name not in SCHEMA.names:
            fields.append(field)
    schema = versioned(fields)
    ordered = table.select(schema.names)
    return parquet.write(ordered.cast(schema), path)


def num_rows(study: Path) -> int:
    """Trials that have a row in a study's table."""
    return len(trial_files(study / FOLDER))


def has_row(study: Path, trial: int) -> bool:
    """Whether a trial has its row."""
    return _row_file(study, trial).is_file()


def read_row(study: Path, trial: int) -> Row | None:
    """A trial's row, None if it has none."""
    if not has_row(study, trial):
        return None
    table = read_arrow(_row_file(study, trial))
    (values,) = table.to_pylist()
    return Row.known_in(values)


def next_trial(study: Path) -> int:
    """The number after the highest that has a row."""
    files = trial_files(study / FOLDER)
    numbers = [int(file.stem.removeprefix("trial-")) for file in files]
    return max(numbers, default=-1) + 1


def _row_file(study: Path, trial: int) -> Path:
    """The file of a trial's row, whether it exists or not."""
    return study / FOLDER / trial_file(trial)


def read_table(
    source: Path | str,
    *,
    columns: Sequence[str] | None = None,
    where: Filters | None = None,
) -> pd.DataFrame:
    """An architecture table as a data frame, sorted by trial.

    Args:
        source: A study's folder, a shared table's folder, a folder of Parquet files, or one Parquet
            file.
        columns: Those to read; by default all. Only these are unpacked.
        where: Conditions all of which rows must meet, such as ("gmacs", "<=", 2.0).

    Returns:
        A row per trial; the schema's columns come first, swept hyper-parameters and columns this
        version does not know after them. A column of the schema that an older file lacks is null.
        Whole numbers that may be missing have pandas' nullable type.

    Raises:
        InputError: There is no such table, or a file is not a table.
    """
    if columns is None:
        return to_frame(read_arrow(source, where=where))

    needed = [*columns, "trial"]  # rows are sorted by trial
    frame = to_frame(read_arrow(source, columns=needed, where=where))
    return frame[list(columns)]


def to_frame(table: pa.Table) -> pd.DataFrame:
    """What `read_arrow` read, as a data frame."""
    frame: pd.DataFrame = table.to_pandas(types_mapper=_nullable)
    return frame


def _nullable(kind: pa.DataType) -> Any:
    """pandas' type for an Arrow type, where missing whole numbers would otherwise become floats."""
    import pandas as pd

    nullable = {
        pa.int32(): pd.Int32Dtype(),
        pa.int64(): pd.Int64Dtype(),
    }
    return nullable.get(kind)


def read_arrow(
    source: Path | str,
    *,
    columns: Sequence[str] | None = None,
    where: Filters | None = None,
) -> pa.Table:
    """A table as `read_table` reads it, but with Arrow's types.

    Its metadata has the newest schema version of its files.

    Raises:
        InputError: There is no such table, or a file is not a table.
    """
    required = required_columns()
    parts = []
    for file in table_files(Path(source)):
        part = parquet.read(file, columns, where, required)
        parts.append(_typed(file, part))

    # The empty table adds the schema's columns that no file has.
    all_parts = [parquet.empty(SCHEMA), *parts]
    try:
        table = pa.concat_tables(all_parts, promote_options="permissive")
    except pa.ArrowException as error:
        raise InputError(f"{source}: its files do not go together ({one_line(error)})") from None

    names = table.column_names
    if columns is not None:
        names = [name for name in names if name in columns]
    if "arch_id" in names:
        _check_ids(source, table)
    if "architecture" in names:
        _check_blocks(source, table)

    fields = []
    for name in names:
        # The schema says of its own columns whether they may be null; for others the file does.
        known = SCHEMA if name in SCHEMA.names else table.schema
        fields.append(known.field(name))
    versions = [int(part.schema.metadata[parquet.VERSION_KEY]) for part in parts]
    schema = versioned(fields, max(versions, default=VERSION))
    try:
        ordered = table.select(names).sort_by("trial")
        return ordered.cast(schema)
    except (pa.ArrowException, ValueError) as error:
        raise InputError(f"{source}: {one_line(error)}") from None


def _check_ids(source: Path | str, rows: pa.Table) -> None:
    """Check that ids have the form of ids, since they become parts of paths.

    Raises:
        InputError: One does not.
    """
    ids = rows["arch_id"].unique()
    for arch_id in ids.to_pylist():
        if arch_id is not None:
            check_arch_id(arch_id, source)


def _check_blocks(source: Path | str, rows: pa.Table) -> None:
    """Check that no block of an architecture is null; only sizes in a block may be.

    Raises:
        InputError: One is.
    """
    lists = pc.struct_field(rows["architecture"], "blocks")
    blocks = pc.list_flatten(lists)
    if blocks.null_count:
        raise InputError(
            f"{source}: column architecture has a block that is null; expected its sizes"
        )


def _has_nan(column: pa.ChunkedArray) -> bool:
    """Whether a column of numbers has NaN; a null is not one."""
    is_nan = pc.is_nan(column)
    return bool(pc.any(is_nan).as_py())


def _typed(file: Path, table: pa.Table) -> pa.Table:
    """The table with the schema's types, where it has the schema's columns.

    Raises:
        InputError: A column of the schema has values of another type, or NaN.
    """
    for index, name in enumerate(table.column_names):
        if name not in SCHEMA.names:
            continue
        field = SCHEMA.field(name)
        try:
            column = table.column(index).cast(field.type)
            # A required column that has nulls is reported when the whole table is cast.
            table = table.set_column(index, field.with_nullable(True), column)
        except (pa.ArrowException, ValueError) as error:
            given = table.schema.field(name).type
            reason = one_line(error)
            raise InputError(
                f"{file}: column {name} is {given}, expected {field.type} ({reason})"
            ) from None

        if pa.types.is_floating(field.type) and _has_nan(column):
            raise InputError(f"{file}: column {name} has NaN; what is missing is null in a table")
    return table

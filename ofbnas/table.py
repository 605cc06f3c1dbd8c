"""The architecture table: one row per finished or failed trial, in Parquet, without pickle and without torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ofbnas import parquet
from ofbnas.errors import InputError
from ofbnas.parquet import Filters
from ofbnas.schema import HISTORY_SCHEMA, SCHEMA, SWEPT, VERSION

FOLDER, HISTORY_FOLDER = "architectures", "history"
COMPACT, COMPACT_HISTORY = "architectures.parquet", "history.parquet"  # all rows in one file, as tables are shared


def write_row(study: Path, row: Mapping[str, Any]) -> Path:
    """Add a trial's row to a study's table; the row's file appears whole or not at all.

    Args:
        study: The study's folder.
        row: Column to value; columns that are left out are null. Columns beyond the schema must start with "hp.".

    Returns:
        The row's file.
    """
    values = [row.get(field.name) for field in SCHEMA]
    arrays = [pa.array([value], type=field.type) for value, field in zip(values, SCHEMA, strict=True)]
    fields = list(SCHEMA)
    for name, value in row.items():
        if name.startswith(SWEPT):
            arrays.append(pa.array([value]))
            fields.append(pa.field(name, arrays[-1].type))
        elif name not in SCHEMA.names:
            raise ValueError(f"the table has no column {name}; swept hyper-parameters start with {SWEPT}")
    schema = pa.schema(fields, metadata={"ofbnas_schema": str(VERSION)})
    return parquet.write(pa.Table.from_arrays(arrays, schema=schema), study / FOLDER / trial_file(row["trial"]))


def write_table(frame: pd.DataFrame, path: Path) -> Path:
    """Write a whole table into one file: the schema's columns with their types, and whatever other columns it has."""
    found = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    table = _typed(path, found)
    known = [field for field in SCHEMA if field.name in table.column_names]
    others = [field for field in table.schema if field.name not in SCHEMA.names]
    schema = pa.schema([*known, *others], metadata={"ofbnas_schema": str(VERSION)})
    return parquet.write(table.select(schema.names).cast(schema), path)


def write_history(study: Path, trial: int, records: Sequence[Mapping[str, Any]]) -> Path:
    """Write a trial's history, one row per beat."""
    rows = [{"study": study.name, "trial": trial, **record} for record in records]
    schema = HISTORY_SCHEMA.with_metadata({"ofbnas_schema": str(VERSION)})
    return parquet.write(pa.Table.from_pylist(rows, schema=schema), study / HISTORY_FOLDER / trial_file(trial))


def num_rows(study: Path) -> int:
    """Trials that have a row in a study's table."""
    return len(list((study / FOLDER).glob("trial-*.parquet")))


def read_row(study: Path, trial: int) -> dict[str, Any] | None:
    """A trial's row as plain values, None if it has none."""
    return to_records(read_table(study / FOLDER / trial_file(trial)))[0] if has_row(study, trial) else None


def has_row(study: Path, trial: int) -> bool:
    """Whether a trial has its row."""
    return (study / FOLDER / trial_file(trial)).is_file()


def next_trial(study: Path) -> int:
    """The number after the highest that has a row."""
    numbers = [int(file.stem.removeprefix("trial-")) for file in (study / FOLDER).glob("trial-*.parquet")]
    return max(numbers, default=-1) + 1


def trial_file(trial: int) -> str:
    """Name of the file with a trial's rows."""
    return f"trial-{trial:05d}.parquet"


def read_table(
    source: Path | str, *, columns: Sequence[str] | None = None, where: Filters | None = None
) -> pd.DataFrame:
    """An architecture table as a data frame, sorted by trial.

    Args:
        source: A study's folder, a shared table's folder, a folder of Parquet files, or one Parquet file.
        columns: Those to read; by default all. Only these are unpacked.
        where: Conditions all of which rows must meet, such as ("gmacs", "<=", 2.0).

    Returns:
        A row per trial; the schema's columns come first, swept hyper-parameters and columns this version does not
        know after them. A column of the schema that an older file lacks is null. Whole numbers that may be missing
        have pandas' nullable type.

    Raises:
        InputError: There is no such table, or a file is none.
    """
    frame = to_frame(read_arrow(source, columns=None if columns is None else [*columns, "trial"], where=where))
    return frame if columns is None else frame[list(columns)]


def to_frame(table: pa.Table) -> pd.DataFrame:
    """What `read_arrow` read, as a data frame."""
    frame: pd.DataFrame = table.to_pandas(types_mapper=_nullable)
    return frame


def read_arrow(source: Path | str, *, columns: Sequence[str] | None = None, where: Filters | None = None) -> pa.Table:
    """A table as `read_table` reads it, with Arrow's types and the newest schema version of its files as metadata.

    Raises:
        InputError: There is no such table, or a file is none.
    """
    required = [field.name for field in SCHEMA if not field.nullable]
    tables = [_typed(file, parquet.read(file, columns, where, required)) for file in table_files(Path(source))]
    try:
        table = pa.concat_tables([SCHEMA.empty_table(), *tables], promote_options="permissive")
    except pa.ArrowException as error:
        raise InputError(f"{source}: its files do not go together ({str(error).splitlines()[0]})") from None
    newest = max((int(part.schema.metadata[parquet.VERSION_KEY]) for part in tables), default=VERSION)
    names = [name for name in table.column_names if columns is None or name in columns]
    fields = [SCHEMA.field(name) if name in SCHEMA.names else table.schema.field(name) for name in names]
    schema = pa.schema(fields, metadata={parquet.VERSION_KEY: str(newest)})
    try:
        return table.select(names).sort_by("trial").cast(schema)
    except (pa.ArrowException, ValueError) as error:
        raise InputError(f"{source}: {str(error).splitlines()[0]}") from None


def _typed(file: Path, table: pa.Table) -> pa.Table:
    """The table with the schema's types, where it has the schema's columns."""
    for index, name in enumerate(table.column_names):
        if name in SCHEMA.names:
            field = SCHEMA.field(name)
            try:
                table = table.set_column(index, field.with_nullable(True), table.column(index).cast(field.type))
            except (pa.ArrowException, ValueError) as error:
                raise InputError(
                    f"{file}: column {name} is {table.schema.field(name).type}, expected {field.type} ({error})"
                ) from None
        column = table.column(index)
        if name in SCHEMA.names and pa.types.is_floating(column.type) and pc.any(pc.is_nan(column)).as_py():
            raise InputError(f"{file}: column {name} has NaN; what is missing is null in a table")
    return table


def condition(text: str) -> tuple[str, str, Any]:
    """A condition on a column, for `read_table`, of text such as "gmacs<=2" or "model=deit_small_patch16_224".

    Raises:
        InputError: It is none, or on no column that can be compared.
    """
    match = re.fullmatch(r"\s*([\w.]+)\s*(<=|>=|!=|==|=|<|>)\s*(.*?)\s*", text)
    if match is None:
        raise InputError(f"condition {text!r}: expected a column, one of <= >= < > = !=, and a value, such as gmacs<=2")
    name, sign, value = match.groups()
    kind = SCHEMA.field(name).type if name in SCHEMA.names else None
    if kind is None or not (pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise InputError(f"condition {text!r}: {name} is no column that can be compared; see ofbnas table describe")
    if pa.types.is_string(kind):
        return name, "==" if sign == "=" else sign, value
    try:
        return name, "==" if sign == "=" else sign, float(value)
    except ValueError:
        raise InputError(f"condition {text!r}: {name} is a number, but {value!r} is none") from None


def table_files(source: Path) -> list[Path]:
    """The Parquet files of a table, in the order of their names.

    Raises:
        InputError: There is no such folder or file.
    """
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise InputError(f"{source}: no such file or folder; expected a study's folder or a .parquet file")
    folder = source / FOLDER if (source / FOLDER).is_dir() else source
    files = sorted(file for file in folder.glob("*.parquet") if file.name != COMPACT_HISTORY)
    if not files and not is_study(source):
        raise InputError(f"{source}: holds no architecture table; expected a study's folder or .parquet files")
    return files


def is_study(folder: Path) -> bool:
    """Whether a folder is a study's."""
    return (folder / "study.yaml").is_file()


def home(source: Path) -> Path:
    """The folder that the table's weights are relative to."""
    if source.is_dir():
        return (
            source if (source / FOLDER).is_dir() or (source / COMPACT).is_file() or is_study(source) else source.parent
        )
    in_study = source.parent.name == FOLDER and source.name != COMPACT
    return source.parent.parent if in_study else source.parent


def find(table: pd.DataFrame, arch_id: str) -> pd.Series[Any]:
    """The best row of an architecture by validation accuracy; an unambiguous beginning of its id will do.

    Raises:
        InputError: No architecture or several have an id that begins so.
    """
    known = table["arch_id"].dropna().unique()
    ids = sorted(known_id for known_id in known if arch_id and str(known_id).startswith(arch_id))
    if len(ids) != 1:
        given = f"{len(ids)} architectures begin with it" if ids else "no architecture has it"
        listed = ", ".join((ids or sorted(known))[:6]) or "none: the table is empty"
        raise InputError(f"arch id {arch_id!r}: {given}; expected one of {listed}")
    rows = table[table["arch_id"] == ids[0]]
    best: pd.Series[Any] = rows.sort_values("val_top1", ascending=False, kind="stable").iloc[0]
    return best


def canonical(value: Any) -> Any:
    """A value of a table that can be compared: nested ones as text."""
    return json.dumps(value, sort_keys=True, default=lambda array: array.tolist()) if isinstance(value, dict) else value


def ambiguous_ids(rows: pd.DataFrame) -> dict[str, int]:
    """Ids that stand for several architectures, and for how many."""
    known = rows[rows["arch_id"].notna()]
    content = known["model"] + known["model_kwargs"] + known["architecture"].map(canonical)
    counts = content.groupby(known["arch_id"]).nunique()
    return {str(arch_id): int(count) for arch_id, count in counts[counts > 1].items()}


def nested(sizes: Mapping[str, tuple[int, int]], kinds: Mapping[str, str]) -> dict[str, Any]:
    """The sizes of axes as the table's `architecture` column has them.

    Args:
        sizes: Axis name to (groups, channels).
        kinds: Axis name to "embed", "attn" or "mlp".
    """
    blocks: dict[str, dict[str, int]] = {}
    for name, (groups, channels) in sizes.items():
        block = name.rpartition(".")[0]
        if kinds[name] == "attn":
            blocks.setdefault(block, {}).update(heads=groups, head_size=channels)
        elif kinds[name] == "mlp":
            blocks.setdefault(block, {}).update(mlp=channels)
    embed = [groups * channels for name, (groups, channels) in sizes.items() if kinds[name] == "embed"]
    return {"embed": embed, "blocks": list(blocks.values())}


def _nullable(kind: pa.DataType) -> Any:
    """pandas' type for an Arrow type, where missing whole numbers would otherwise become floats."""
    return {pa.int32(): pd.Int32Dtype(), pa.int64(): pd.Int64Dtype()}.get(kind)


def to_records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain JSON values: missing ones are None, times are ISO 8601."""
    records: list[dict[str, Any]] = json.loads(table.to_json(orient="records", date_format="iso", double_precision=15))
    return records

"""The architecture table: one row per finished or failed trial, in Parquet, without pickle and without torch."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ofbnas.errors import InputError

VERSION = 1
SWEPT = "hp."  # prefix of the columns that hold swept hyper-parameters
FOLDER, HISTORY_FOLDER = "architectures", "history"
COMPACT, COMPACT_HISTORY = "architectures.parquet", "history.parquet"  # all rows in one file, as tables are shared

_BLOCK = pa.struct([("heads", pa.int32()), ("head_size", pa.int32()), ("mlp", pa.int32())])

# Columns: name, type, and whether a row must have it.
SCHEMA = pa.schema(
    [
        pa.field("arch_id", pa.string()),
        pa.field("study", pa.string(), nullable=False),
        pa.field("trial", pa.int64(), nullable=False),
        pa.field("status", pa.string(), nullable=False),  # complete | failed
        pa.field("reason", pa.string()),
        pa.field("model", pa.string(), nullable=False),
        pa.field("model_kwargs", pa.string(), nullable=False),  # JSON
        pa.field("num_classes", pa.int32()),
        pa.field("image_size", pa.int32()),
        pa.field(
            "architecture",
            pa.struct([("embed", pa.list_(pa.int32())), ("blocks", pa.list_(_BLOCK))]),
        ),
        pa.field("gmacs", pa.float64()),
        pa.field("params", pa.int64()),
        pa.field("parent_gmacs", pa.float64()),
        pa.field("parent_params", pa.int64()),
        pa.field("budget", pa.string()),
        pa.field("budget_note", pa.string()),
        pa.field("forced", pa.int32()),
        pa.field("top1", pa.float64()),
        pa.field("top5", pa.float64()),
        pa.field("val_top1", pa.float64()),
        pa.field("top1_before_finetune", pa.float64()),
        pa.field("parent_top1", pa.float64()),
        pa.field("latency_ms", pa.float64()),
        pa.field("latency_p90_ms", pa.float64()),
        pa.field("latency_device", pa.string()),
        pa.field("search_epochs", pa.int32()),
        pa.field("finetune_epochs", pa.int32()),
        pa.field("seconds", pa.float64()),
        pa.field("device", pa.string()),
        pa.field("seed", pa.int64()),
        pa.field("dataset", pa.string()),
        pa.field("versions", pa.string()),  # JSON
        pa.field("git_commit", pa.string()),
        pa.field("weights", pa.string()),  # path relative to the study's folder
        pa.field("weights_sha256", pa.string()),
        pa.field("finished_at", pa.timestamp("us", tz="UTC")),
    ]
)

HISTORY_SCHEMA = pa.schema(
    [
        pa.field("study", pa.string(), nullable=False),
        pa.field("trial", pa.int64(), nullable=False),
        pa.field("epoch", pa.int32(), nullable=False),
        pa.field("step", pa.int64(), nullable=False),
        pa.field("task", pa.float64()),
        pa.field("reconstruction", pa.float64()),
        pa.field("one_hot", pa.float64()),
        pa.field("importance_norm", pa.float64()),
        pa.field("expected_cost", pa.float64()),  # share of the parent's cost
        pa.field("importance_weight", pa.float64()),
        pa.field("mask_ratio", pa.float64()),
        pa.field("multiplier", pa.float64()),
        pa.field(
            "axes",
            pa.list_(
                pa.struct(
                    [
                        ("axis", pa.string()),
                        ("groups", pa.int32()),
                        ("channels", pa.int32()),
                        ("options", pa.int32()),
                        ("expected", pa.float64()),
                    ]
                )
            ),
        ),
    ]
)


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
    return _write(pa.Table.from_arrays(arrays, schema=schema), study / FOLDER / trial_file(row["trial"]))


def write_history(study: Path, trial: int, records: Sequence[Mapping[str, Any]]) -> Path:
    """Write a trial's history, one row per beat."""
    rows = [{"study": study.name, "trial": trial, **record} for record in records]
    schema = HISTORY_SCHEMA.with_metadata({"ofbnas_schema": str(VERSION)})
    return _write(pa.Table.from_pylist(rows, schema=schema), study / HISTORY_FOLDER / trial_file(trial))


def num_rows(study: Path) -> int:
    """Trials that have a row in a study's table."""
    return len(list((study / FOLDER).glob("trial-*.parquet")))


def read_row(study: Path, trial: int) -> dict[str, Any] | None:
    """A trial's row as plain values, None if it has none."""
    file = study / FOLDER / trial_file(trial)
    return to_records(read_table(file))[0] if file.is_file() else None


def next_trial(study: Path) -> int:
    """The number after the highest that has a row."""
    numbers = [int(file.stem.removeprefix("trial-")) for file in (study / FOLDER).glob("trial-*.parquet")]
    return max(numbers, default=-1) + 1


def trial_file(trial: int) -> str:
    """Name of the file with a trial's rows."""
    return f"trial-{trial:05d}.parquet"


def read_table(source: Path | str) -> pd.DataFrame:
    """An architecture table as a data frame, sorted by trial.

    Args:
        source: A study's folder, a shared table's folder, a folder of Parquet files, or one Parquet file.

    Returns:
        A row per trial; the schema's columns come first, swept hyper-parameters and columns this version does not
        know after them. Whole numbers that may be missing have pandas' nullable type.

    Raises:
        InputError: There is no such table, or a file is none.
    """
    frame: pd.DataFrame = read_arrow(source).to_pandas(types_mapper=_nullable)
    return frame


def read_arrow(source: Path | str) -> pa.Table:
    """A table as `read_table` reads it, with Arrow's types and the newest schema version of its files as metadata.

    Raises:
        InputError: There is no such table, or a file is none.
    """
    tables = [_read(file) for file in table_files(Path(source))]
    table = pa.concat_tables(tables, promote_options="permissive") if tables else SCHEMA.empty_table()
    order = [name for name in SCHEMA.names if name in table.column_names]
    table = table.select(order + [name for name in table.column_names if name not in order])
    newest = max((int(part.schema.metadata[b"ofbnas_schema"]) for part in tables), default=VERSION)
    return table.sort_by("trial").replace_schema_metadata({"ofbnas_schema": str(newest)})


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


def _read(file: Path) -> pa.Table:
    try:
        table = pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{file}: no Parquet file ({str(error).splitlines()[0]})") from None
    metadata = table.schema.metadata or {}
    if (version := metadata.get(b"ofbnas_schema")) is None:
        raise InputError(f"{file}: a Parquet file, but no architecture table (its metadata has no ofbnas_schema)")
    if not version.isdigit() or int(version) < 1:
        raise InputError(f"{file}: has schema version {version!r}, expected a whole number from 1")
    if missing := [f.name for f in SCHEMA if not f.nullable and f.name not in table.column_names]:
        raise InputError(f"{file}: an architecture table without the columns {', '.join(missing)}")
    return table.replace_schema_metadata({"ofbnas_schema": version})


def _write(table: pa.Table, path: Path) -> Path:
    """Write a Parquet file beside its place and rename it, so that it is never seen in part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".writing-", dir=path.parent)
    os.close(handle)
    beside = Path(name)
    try:
        pq.write_table(table, beside, compression="zstd")
        beside.chmod(0o644)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def to_records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain JSON values: missing ones are None, times are ISO 8601."""
    records: list[dict[str, Any]] = json.loads(table.to_json(orient="records", date_format="iso", double_precision=15))
    return records

"""Parquet files: read with limits, for they may come from strangers; written beside their place and renamed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ofbnas.errors import InputError

Filters = Sequence[tuple[str, str, Any]]

VERSION_KEY = b"ofbnas_schema"
MAX_ROWS = 20_000_000
MAX_COLUMNS = 2_000
MAX_ROW_GROUPS = 10_000
MAX_VALUES = 400_000_000  # of one column, elements of lists included
MAX_BYTES = 8 * 2**30  # of all columns, as they say they are when unpacked
MAX_FOOTER = 64 * 2**20
MAX_FOOTER_ITEMS = 1_000_000


def read(
    file: Path, columns: Sequence[str] | None = None, where: Filters | None = None, required: Sequence[str] = ()
) -> pa.Table:
    """A Parquet file of this program's, with no more read of it than is asked for.

    Args:
        file: The file.
        columns: Those to read, where the file has them; by default all.
        where: Conditions all of which rows must meet, such as ("gmacs", "<=", 2.0). A column that the file lacks is
            null in each row, so no row meets a condition on it.
        required: Columns without which it is not the table that is expected.

    Raises:
        InputError: It is no Parquet file, or damaged, or larger than any table of architectures, or not of this
            program's making.
    """
    try:
        with pq.ParquetFile(
            file, thrift_string_size_limit=MAX_FOOTER, thrift_container_size_limit=MAX_FOOTER_ITEMS
        ) as opened:
            _check_sizes(file, opened.metadata)
            schema = opened.schema_arrow
            version, names = _version(file, schema.metadata or {}), schema.names
            if len(set(names)) != len(names):
                raise InputError(f"{file}: has two columns of one name")
            if missing := [name for name in required if name not in names]:
                raise InputError(f"{file}: is without the columns {', '.join(missing)}")
            kept = names if columns is None else [name for name in names if name in columns]
            if where is not None and any(name not in names for name, _, _ in where):
                return schema.empty_table().select(kept).replace_schema_metadata(version)
            table = _filtered(file, kept, where) if where else opened.read(columns=kept)
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError, MemoryError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{file}: no Parquet file ({reason})") from None
    return table.replace_schema_metadata(version)


def _filtered(file: Path, columns: Sequence[str], where: Filters) -> pa.Table:
    """The rows that meet conditions; no others are unpacked."""
    return pq.read_table(
        file,
        columns=columns,
        filters=list(where),
        partitioning=None,
        thrift_string_size_limit=MAX_FOOTER,
        thrift_container_size_limit=MAX_FOOTER_ITEMS,
    )


def write(table: pa.Table, path: Path) -> Path:
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


def _check_sizes(file: Path, metadata: pq.FileMetaData) -> None:
    """What the footer says of rows, columns and bytes, before any of it is unpacked."""
    groups = [metadata.row_group(index) for index in range(min(metadata.num_row_groups, MAX_ROW_GROUPS + 1))]
    size = file.stat().st_size
    chunks = [group.column(index) for group in groups for index in range(min(group.num_columns, MAX_COLUMNS + 1))]
    found = {
        "rows": (metadata.num_rows, MAX_ROWS),
        "columns": (metadata.num_columns, MAX_COLUMNS),
        "row groups": (metadata.num_row_groups, MAX_ROW_GROUPS),
        "values in a column": (max((chunk.num_values for chunk in chunks), default=0), MAX_VALUES),
        "bytes": (sum(chunk.total_uncompressed_size for chunk in chunks), MAX_BYTES),
        "packed bytes": (sum(chunk.total_compressed_size for chunk in chunks), size),
    }
    for what, (count, limit) in found.items():
        if not 0 <= count <= limit:
            raise InputError(f"{file}: says that it has {count:,} {what}, expected at most {limit:,}")
    if sum(group.num_rows for group in groups) != metadata.num_rows:
        raise InputError(f"{file}: its row groups do not add up to its {metadata.num_rows:,} rows")


def _version(file: Path, metadata: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """The part of a file's metadata that is this program's: the version of its schema."""
    version = metadata.get(VERSION_KEY)
    if version is None:
        raise InputError(f"{file}: a Parquet file, but no architecture table (its metadata has no ofbnas_schema)")
    if not version.isdigit() or int(version) < 1:
        raise InputError(f"{file}: has schema version {version!r}, expected a whole number from 1")
    return {VERSION_KEY: version}

"""Parquet files: read within limits, since they may come from strangers; written atomically.

A small file can unpack to more than any machine holds: a dictionary stores a value once however
many rows repeat it, and runs of equal values take almost no space. So the footer is checked first.
Then batches are unpacked one after the other, with texts as dictionaries, and their size is counted
before they are expanded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ofbnas.errors import InputError, one_line
from ofbnas.files import durable
from ofbnas.files.untrusted import check_regular, visible

Filters = Sequence[tuple[str, str, Any]]

VERSION_KEY = b"ofbnas_schema"
MAX_VERSION_DIGITS = 9
MAX_ROWS = 5_000_000
MAX_COLUMNS = 2_000
MAX_ROW_GROUPS = 10_000
MAX_VALUES = 400_000_000  # of one column, elements of lists included
MAX_BYTES = 8 * 2**30  # of all columns, unpacked
MAX_FOOTER = 64 * 2**20
MAX_FOOTER_ITEMS = 1_000_000

# Unpacked bytes, and elements of lists, that any file may have, and how many more for each of its
# packed bytes.
BASE_BYTES = 256 * 2**20
BYTES_PER_BYTE = 100
BASE_ELEMENTS = 500_000
ELEMENTS_PER_BYTE = 4

BATCH_ROWS = 16_384
BATCH_BYTES = 256 * 2**20  # of texts in lists, at most, as these cannot be kept as dictionaries
MAX_WIDTH = 64  # bytes of a value of fixed width
MAX_SHOWN = 80  # characters of a column's name in an error message

_FOOTER_LIMITS = {
    "thrift_string_size_limit": MAX_FOOTER,
    "thrift_container_size_limit": MAX_FOOTER_ITEMS,
}


def read(
    file: Path,
    columns: Sequence[str] | None = None,
    where: Filters | None = None,
    required: Sequence[str] = (),
) -> pa.Table:
    """The table in a Parquet file that ofbnas wrote; only what is asked for is unpacked.

    Args:
        file: The file.
        columns: Those to read, where the file has them; by default all.
        where: Conditions all of which rows must meet, such as ("gmacs", "<=", 2.0). A column that
            the file lacks is null in each row, so no row meets a condition on it.
        required: Columns that an architecture table has.

    Raises:
        InputError: It is not a Parquet file, is damaged, is larger than any table of architectures,
            or was not written by ofbnas.
    """
    check_regular(file)
    try:
        return _read(file, columns, where, required)
    except InputError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError, MemoryError) as error:
        reason = visible(one_line(error))
        raise InputError(f"{visible(file)}: not a Parquet file, or damaged ({reason})") from None


def _read(
    file: Path,
    columns: Sequence[str] | None,
    where: Filters | None,
    required: Sequence[str],
) -> pa.Table:
    """The table of `read`, with Arrow's own errors."""
    with pq.ParquetFile(file, **_FOOTER_LIMITS) as opened:
        _check_sizes(file, opened.metadata)
        schema = opened.schema_arrow
        texts = _text_columns(opened.schema)

    version = _version(file, schema.metadata or {})
    names = schema.names
    if len(set(names)) != len(names):
        raise InputError(f"{visible(file)}: has two columns of one name")
    missing = [name for name in required if name not in names]
    if missing:
        raise InputError(f"{visible(file)}: lacks the columns {', '.join(missing)}")

    kept = names
    if columns is not None:
        kept = [name for name in names if name in columns]
    conditioned = {name for name, _, _ in where or ()}
    if not conditioned <= set(names):
        return empty(schema).select(kept).replace_schema_metadata(version)

    # The file is opened again because only now is it known which columns are to be read as
    # dictionaries.
    with pq.ParquetFile(file, read_dictionary=texts, **_FOOTER_LIMITS) as opened:
        result = pa.schema([schema.field(name) for name in kept])
        parts = list(_parts(file, opened, result, where or ()))
        table = pa.concat_tables([empty(result), *parts])
    table.validate(full=True)
    return table.replace_schema_metadata(version)


def empty(schema: pa.Schema) -> pa.Table:
    """A table without rows; `schema.empty_table()` would import pandas."""
    return pa.Table.from_batches([], schema)


def _parts(
    file: Path,
    opened: pq.ParquetFile,
    result: pa.Schema,
    where: Filters,
) -> Iterator[pa.Table]:
    """The rows that meet conditions, batch by batch.

    Args:
        file: The file.
        opened: The same, opened with texts as dictionaries.
        result: The columns to return, with their types.
        where: The conditions.

    Raises:
        InputError: They unpack to more than a file of this size may.
    """
    wanted = set(result.names)
    wanted.update(name for name, _, _ in where)
    needed = [name for name in opened.schema_arrow.names if name in wanted]
    batch_rows = _batch_rows(file, opened, needed)

    expected = BASE_BYTES + BYTES_PER_BYTE * file.stat().st_size
    limit = min(MAX_BYTES, expected)
    size = 0
    for batch in opened.iter_batches(batch_size=batch_rows, columns=needed):
        part = pa.Table.from_batches([batch])
        if where:
            condition = pq.filters_to_expression(list(where))
            part = part.filter(condition)
        part = part.select(result.names)

        # Texts are still dictionaries here, so what they would unpack to is added.
        size += part.nbytes
        for column in part.columns:
            size += sum(_text_bytes(chunk) for chunk in column.chunks)
        if size > limit:
            raise InputError(
                f"{visible(file)}: unpacks to more than {limit:,} bytes, "
                "which no table of its size does"
            )
        columns = [part.column(field.name).cast(field.type) for field in result]
        yield pa.table(columns, schema=result)


def _batch_rows(file: Path, opened: pq.ParquetFile, columns: Sequence[str]) -> int:
    """How many rows may be unpacked at once.

    Raises:
        InputError: Columns have more elements in lists, or wider values, than a table has.
    """
    metadata = opened.metadata
    rows = BATCH_ROWS
    for index in range(metadata.num_columns):
        leaf = opened.schema.column(index)
        in_list = leaf.max_repetition_level > 0
        name = leaf.path
        if in_list:
            # The path continues below the column's name, such as "axes.list.element.axis".
            name = name.partition(".")[0]
        if name not in columns:
            continue
        if leaf.physical_type == "FIXED_LEN_BYTE_ARRAY" and leaf.length > MAX_WIDTH:
            label = visible(leaf.path)[:MAX_SHOWN]
            raise InputError(f"{visible(file)}: {label} has values of {leaf.length:,} bytes")
        if in_list:
            groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
            chunks = [group.column(index) for group in groups]
            fitting = _list_rows(file, leaf, chunks, metadata.num_rows)
            rows = min(rows, fitting)
    return rows


def _list_rows(
    file: Path,
    leaf: pq.ColumnSchema,
    chunks: Sequence[pq.ColumnChunkMetaData],
    num_rows: int,
) -> int:
    """How many rows of a column of lists may be unpacked at once.

    Raises:
        InputError: The lists have more elements than a table of this size has.
    """
    most = BASE_ELEMENTS + ELEMENTS_PER_BYTE * file.stat().st_size
    values = sum(chunk.num_values for chunk in chunks)
    if values > most:
        label = visible(leaf.path)[:MAX_SHOWN]
        raise InputError(
            f"{visible(file)}: {label} has {values:,} elements, expected at most {most:,}"
        )
    if leaf.physical_type != "BYTE_ARRAY" or not values:
        return BATCH_ROWS

    # A text may be as long as its whole chunk, and a dictionary may give this text to every
    # element.
    longest = max(chunk.total_uncompressed_size for chunk in chunks)
    per_row = max(1, values // max(1, num_rows))
    batch_rows: int = max(1, BATCH_BYTES // (longest * per_row))
    return batch_rows


def _text_columns(schema: pq.ParquetSchema) -> list[str]:
    """Columns of texts or bytes outside of lists, which can be read as dictionaries."""
    names = []
    for index in range(len(schema)):
        leaf = schema.column(index)
        in_list = leaf.max_repetition_level > 0
        if leaf.physical_type == "BYTE_ARRAY" and not in_list:
            names.append(leaf.path)
    return names


def _text_bytes(chunk: pa.Array) -> int:
    """Bytes of a dictionary's texts once each row has its own copy.

    An array that is not a dictionary is unpacked already and has 0 more.
    """
    if not pa.types.is_dictionary(chunk.type) or not len(chunk):
        return 0
    lengths = pc.binary_length(chunk.dictionary)
    lengths = lengths.cast(pa.int64())  # their sum may exceed 32 bits
    of_rows = lengths.take(chunk.indices)
    return pc.sum(of_rows).as_py() or 0  # None where all rows are null


def write(table: pa.Table, path: Path) -> Path:
    """Write a Parquet file atomically and durably."""
    with durable.writing(path) as file:
        pq.write_table(table, file, compression="zstd")
    return path


def _check_sizes(file: Path, metadata: pq.FileMetaData) -> None:
    """Check the rows, columns and bytes that the footer declares, before any of them is unpacked.

    Raises:
        InputError: They exceed what a table has, or contradict each other.
    """
    # One group and one column more than the limits suffice to see that they are exceeded.
    num_groups = min(metadata.num_row_groups, MAX_ROW_GROUPS + 1)
    groups = [metadata.row_group(index) for index in range(num_groups)]
    chunks = []
    for group in groups:
        num_columns = min(group.num_columns, MAX_COLUMNS + 1)
        chunks += [group.column(index) for index in range(num_columns)]

    most_values = max((chunk.num_values for chunk in chunks), default=0)
    unpacked = sum(chunk.total_uncompressed_size for chunk in chunks)
    packed = sum(chunk.total_compressed_size for chunk in chunks)
    declared = {
        "rows": (metadata.num_rows, MAX_ROWS),
        "columns": (metadata.num_columns, MAX_COLUMNS),
        "row groups": (metadata.num_row_groups, MAX_ROW_GROUPS),
        "values in a column": (most_values, MAX_VALUES),
        "bytes": (unpacked, MAX_BYTES),
        "packed bytes": (packed, file.stat().st_size),
    }
    for what, (count, limit) in declared.items():
        if not 0 <= count <= limit:
            raise InputError(
                f"{visible(file)}: says that it has {count:,} {what}, expected at most {limit:,}"
            )
    in_groups = sum(group.num_rows for group in groups)
    if in_groups != metadata.num_rows:
        raise InputError(
            f"{visible(file)}: its row groups do not add up to its {metadata.num_rows:,} rows"
        )


def _version(file: Path, metadata: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """The version of the schema: the only part of a file's metadata that is kept.

    Raises:
        InputError: It has none, or it is not a whole number.
    """
    version = metadata.get(VERSION_KEY)
    if version is None:
        raise InputError(
            f"{visible(file)}: a Parquet file, but not an architecture table "
            "(it has no ofbnas_schema)"
        )
    is_whole = version.isdigit() and len(version) <= MAX_VERSION_DIGITS
    if not is_whole or int(version) < 1:
        raise InputError(
            f"{visible(file)}: has schema version {version[:40]!r}, expected a whole number from 1"
        )
    return {VERSION_KEY: version}

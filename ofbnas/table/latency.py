"""The latencies that `ofbnas bench` measured, in a Parquet file beside a table.

A row is one network under one set of conditions. Rows are only ever added: of a network that was
measured again, the newest counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ofbnas.errors import InputError
from ofbnas.files.untrusted import visible
from ofbnas.table import parquet
from ofbnas.table.layout import LATENCY, home
from ofbnas.table.schema import VERSION

if TYPE_CHECKING:
    import pandas as pd

PARENT = ["model", "model_kwargs"]  # what tells parents apart


@dataclass(frozen=True)
class Conditions:
    """What a latency depends on besides the network.

    Attributes:
        device: Name of the GPU or the CPU.
        threads: Threads of a CPU; None on a GPU.
        batch_size: Images in a batch.
        dtype: Data type of weights and images, by torch's name.
        compiled: Whether torch.compile was used.
        runtime: "torch" or "onnx".
    """

    device: str
    threads: int | None
    batch_size: int
    dtype: str
    compiled: bool = False
    runtime: str = "torch"

    def __str__(self) -> str:
        """As text, for people.

        >>> str(Conditions("Xeon", 2, 32, "float32", runtime="onnx"))
        'Xeon, 2 threads, batch 32, float32, onnx'
        """
        words = [self.device]
        if self.threads is not None:
            words.append(f"{self.threads} thread{'' if self.threads == 1 else 's'}")
        words += [f"batch {self.batch_size}", self.dtype]
        if self.compiled:
            words.append("compiled")
        if self.runtime != "torch":
            words.append(self.runtime)
        return ", ".join(words)


CONDITIONS = tuple(field.name for field in fields(Conditions))


def _column(name: str, kind: pa.DataType, meaning: str, unit: str = "", **more: Any) -> pa.Field:
    """A column of the file; `more` says whether it may be null."""
    return pa.field(name, kind, metadata={"meaning": meaning, "unit": unit}, **more)


LATENCY_SCHEMA = pa.schema(
    [
        _column("arch_id", pa.string(), "Id of the architecture; null of a parent itself."),
        _column("model", pa.string(), "timm's name of the parent.", nullable=False),
        _column("model_kwargs", pa.string(), "JSON: its arguments.", nullable=False),
        _column("device", pa.string(), "Name of the GPU or the CPU.", nullable=False),
        _column("threads", pa.int32(), "Threads of a CPU; null on a GPU."),
        _column("batch_size", pa.int32(), "Images in a batch.", nullable=False),
        _column("dtype", pa.string(), "Data type of weights and images.", nullable=False),
        _column("compiled", pa.bool_(), "Whether torch.compile was used.", nullable=False),
        _column("runtime", pa.string(), "torch or onnx.", nullable=False),
        _column("median_ms", pa.float64(), "Median time of a batch.", "ms", nullable=False),
        _column("p90_ms", pa.float64(), "Nine of ten batches took at most this.", "ms"),
        _column("images_per_second", pa.float64(), "Of the median.", "1/s"),
        _column("batches", pa.int32(), "Number of batches that were timed."),
        _column("versions", pa.string(), "JSON: versions of ofbnas, torch, timm and others."),
        _column("measured_at", pa.timestamp("us", tz="UTC"), "When.", nullable=False),
    ],
    metadata={parquet.VERSION_KEY: str(VERSION)},
)


def latency_file(source: Path) -> Path:
    """Where the latencies of a table's networks are, if they were measured."""
    return home(source) / LATENCY


def add_latencies(source: Path, records: Sequence[Mapping[str, Any]]) -> Path:
    """Add measured latencies to those of a table.

    Args:
        source: The table.
        records: Values of the columns.

    Returns:
        The file.
    """
    added = pa.Table.from_pylist(list(records), schema=LATENCY_SCHEMA)
    before = latency_arrow(source)
    table = added if before is None else pa.concat_tables([before, added])
    return parquet.write(table, latency_file(source))


def latency_arrow(source: Path) -> pa.Table | None:
    """All that was measured of a table's networks, with the types of the schema; None if nothing was.

    Raises:
        InputError: The file is not one of latencies.
    """
    file = latency_file(source)
    if not file.exists():
        return None
    table = parquet.read(file, required=LATENCY_SCHEMA.names).select(LATENCY_SCHEMA.names)
    try:
        return table.replace_schema_metadata(None).cast(LATENCY_SCHEMA)
    except (pa.ArrowException, ValueError) as error:
        raise InputError(f"{file}: its columns are not those of latencies: {error}") from None


def with_latencies(
    table: pd.DataFrame, source: Path, wanted: Sequence[str] | None = None
) -> pd.DataFrame:
    """A table whose latency columns are those that `ofbnas bench` measured.

    Args:
        table: The rows of `source`.
        source: The table's folder or file.
        wanted: Conditions such as "batch_size=1"; None for those of the newest measurement.

    Returns:
        The table as it is if nothing was measured; otherwise a copy in which networks that were not
        measured under these conditions have no latency.

    Raises:
        InputError: No measurement meets the conditions, or measurements under several do.
    """
    import pandas as pd

    arrow = latency_arrow(source)
    if arrow is None:
        return table
    measured = arrow.to_pandas().sort_values("measured_at", kind="stable")
    measured["conditions"] = [str(_conditions(row)) for row in measured.to_dict("records")]
    if wanted is None:
        measured = measured[measured["conditions"] == measured["conditions"].iloc[-1]]
    else:
        measured = _selected(measured, wanted, latency_file(source))

    of_parent = measured["arch_id"].isna()
    found = _newest(measured[~of_parent], ["arch_id"])
    parents = _newest(measured[of_parent], PARENT)
    keys = pd.MultiIndex.from_frame(table[PARENT])
    result = table.copy()
    result["latency_ms"] = table["arch_id"].map(found["median_ms"])
    result["latency_p90_ms"] = table["arch_id"].map(found["p90_ms"])
    result["latency_device"] = table["arch_id"].map(found["conditions"])
    result["parent_latency_ms"] = parents["median_ms"].reindex(keys).to_numpy()
    return result


def _newest(measured: pd.DataFrame, key: list[str]) -> pd.DataFrame:
    """The newest measurement of each network, by what tells them apart."""
    return measured.drop_duplicates(key, keep="last").set_index(key if len(key) > 1 else key[0])


def _selected(measured: pd.DataFrame, wanted: Sequence[str], file: Path) -> pd.DataFrame:
    """The measurements that meet conditions, which must all be under the same ones.

    Raises:
        InputError: There are none, or those left are under several.
    """
    selected = measured
    for text in wanted:
        name, _, value = text.partition("=")
        if name not in CONDITIONS or not value:
            raise InputError(
                f"--measured {text}: expected a condition and its value, such as batch_size=1; "
                f"conditions are {', '.join(CONDITIONS)}"
            )
        texts = [_text(each) for each in selected[name]]
        selected = selected[[each == value.lower() for each in texts]]
    known = list(dict.fromkeys((selected if len(selected) else measured)["conditions"]))
    if len(selected) and len(known) == 1:
        return selected
    state = "are several conditions" if len(selected) else "is nothing else"
    listed = "; ".join(visible(text) for text in known)
    raise InputError(
        f"{file}: of --measured {' '.join(wanted) or '(not given)'} there {state}: {listed}; "
        "choose one, such as by --measured batch_size=1"
    )


def _conditions(row: Mapping[str, Any]) -> Conditions:
    """The conditions of a row of the file."""
    values = {name: row[name] for name in CONDITIONS}
    threads = values["threads"]
    known = threads is not None and threads == threads  # pandas has NaN for null
    return Conditions(**(values | {"threads": int(threads) if known else None}))


def _text(value: Any) -> str:
    """A condition's value as it is written on the command line.

    >>> _text(1.0), _text(True), _text("torch")
    ('1', 'true', 'torch')
    """
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).lower()

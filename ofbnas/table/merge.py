"""Merging architecture tables: each trial once, its origin, and the conflicts between tables."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ofbnas.errors import InputError
from ofbnas.files import durable
from ofbnas.files.untrusted import check_arch_id, inside
from ofbnas.files.weights import SUBNET_FILES, WEIGHTS, file_sha256
from ofbnas.table import layout, query, store
from ofbnas.table.layout import weights_file

ORIGIN = "origin"
SOURCE = "_source"  # the path of a row's table, while merging
KEY = ["study", "trial", "arch_id"]  # rows that agree on these are of one trial


@dataclass(frozen=True)
class Merged:
    """The result of a merge.

    Attributes:
        rows: Number of rows written.
        duplicates: Number of rows left out because an equal one was written.
        conflicts: Trials of which several rows are kept because they differ, each with the columns
            in which they do.
    """

    rows: int
    duplicates: int
    conflicts: list[str]


def merge(sources: Sequence[Path], target: Path) -> Merged:
    """Write several tables as one into a new folder, with the weights that exist.

    A trial that several tables have is kept once. If its rows differ, all are kept and reported.
    The column `origin` names the table that a row came from; a row that has one already keeps it.

    Args:
        sources: Studies' folders or .parquet files.
        target: A folder that does not exist yet.

    Raises:
        InputError: A source is not a table, the target exists, or one id stands for two
            architectures.
    """
    if target.exists():
        raise InputError(f"{target}: exists already; give a folder that does not")
    tables = [_read(source) for source in sources]
    joined = pd.concat(tables, ignore_index=True)
    for arch_id, count in query.ambiguous_ids(joined).items():
        raise InputError(
            f"architecture {arch_id} stands for {count} different ones; validate the tables"
        )

    # Where a row is from and where its weights are does not make it another row.
    content = joined.drop(columns=[ORIGIN, SOURCE, "weights"])
    content = content.map(query.canonical)
    is_new = ~content.duplicated().to_numpy()
    kept = joined[is_new].reset_index(drop=True)
    kept_content = content[is_new].reset_index(drop=True)
    conflicts = _conflicts(kept, kept_content)

    temporary = durable.temporary_path(target)
    try:
        kept["weights"] = [_copy_weights(row, temporary) for _, row in kept.iterrows()]
        file = temporary / layout.FOLDER / "merged.parquet"
        store.write_table(kept.drop(columns=SOURCE), file)
        durable.rename(temporary, target)
    finally:
        durable.remove(temporary)
    return Merged(
        rows=len(kept),
        duplicates=len(joined) - len(kept),
        conflicts=conflicts,
    )


def _read(source: Path) -> pd.DataFrame:
    """A table with the column `origin`, and the path it was read from."""
    rows = store.read_table(source)
    origin: pd.Series[Any] = pd.Series([None] * len(rows), dtype="object")
    if ORIGIN in rows:
        origin = rows[ORIGIN].astype("object")
    rows = rows.assign(**{ORIGIN: origin.where(origin.notna(), source.name)})
    rows[SOURCE] = str(source)
    return rows


def _conflicts(rows: pd.DataFrame, content: pd.DataFrame) -> list[str]:
    """Trials with several rows, the tables they are from, and the columns in which they differ.

    Args:
        rows: The rows that are kept.
        content: The same without origin and weights, in a form that can be compared.
    """
    conflicts = []
    repeated = rows[rows.duplicated(KEY, keep=False)]
    for (study, trial, _), same in repeated.groupby(KEY, dropna=False):
        num_values = content.loc[same.index].nunique(dropna=False)
        differing = num_values.index[num_values > 1]
        names = ", ".join(differing)
        tables = ", ".join(same[SOURCE])
        conflicts.append(f"{study}, trial {trial}: {tables} differ in {names}")
    return conflicts


def _copy_weights(row: pd.Series[Any], target: Path) -> str | None:
    """Copy a row's weights, into a folder named by the architecture's id.

    Returns:
        The path of the copy, relative to the target; None if the row has no weights.

    Raises:
        InputError: They are not those that the row recorded.
    """
    if pd.isna(row["weights"]):
        return None
    source = Path(row[SOURCE])
    file = weights_file(source, row["weights"])
    if file is None:
        return None
    sha256 = row["weights_sha256"]
    if file_sha256(file) != sha256:
        raise InputError(
            f"{file}: is not the file that the row of {row['arch_id']} recorded; validate the table"
        )

    # Two trials may have trained one architecture differently: the second gets a folder of its own.
    arch_id = check_arch_id(row["arch_id"], source)
    folder = target / "subnets" / arch_id
    if folder.exists() and file_sha256(folder / WEIGHTS) != sha256:
        folder = folder.with_name(f"{arch_id}-{sha256[:12]}")

    if not folder.exists():
        folder.mkdir(parents=True)
        shutil.copyfile(file, folder / WEIGHTS)
        for name in SUBNET_FILES:
            other = inside(file.parent, name, source)
            if name != WEIGHTS and other.is_file():
                shutil.copyfile(other, folder / name)
    return f"subnets/{folder.name}/{WEIGHTS}"

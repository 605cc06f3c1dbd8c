"""Several architecture tables as one: each trial once, where it came from, and what contradicts what."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ofbnas import table
from ofbnas.errors import InputError
from ofbnas.weights import file_sha256, weights_file

ORIGIN = "origin"
KEY = ["study", "trial", "arch_id"]


@dataclass(frozen=True)
class Merged:
    """What came of a merge.

    Attributes:
        rows: Rows written.
        duplicates: Rows left out because an equal one is there.
        conflicts: Trials of which several rows are kept, because they do not say the same, each with the columns.
    """

    rows: int
    duplicates: int
    conflicts: list[str]


def merge(sources: Sequence[Path], target: Path) -> Merged:
    """Write tables as one into a new folder, with the weights that are there.

    A trial that several tables have is kept once. Where they differ on it, all are kept, and told. The column `origin`
    says which table a row came from; a row that has one already keeps it.

    Args:
        sources: Studies' folders or .parquet files.
        target: A folder that does not exist yet.

    Raises:
        InputError: One is no table, the target exists, or one id stands for two architectures.
    """
    if target.exists():
        raise InputError(f"{target}: exists already; give a folder that does not")
    read = [_with_origin(table.read_table(source), source) for source in sources]
    for source, rows in zip(sources, read, strict=True):
        rows["_source"] = str(source)
    joined = pd.concat(read, ignore_index=True)
    for arch_id, count in table.ambiguous_ids(joined).items():
        raise InputError(f"architecture {arch_id} stands for {count} different ones; validate the tables")
    content = joined.drop(columns=[ORIGIN, "_source", "weights"]).map(table.canonical)
    kept = joined[~content.duplicated().to_numpy()].reset_index(drop=True)
    conflicts = _conflicts(kept, content[~content.duplicated().to_numpy()].reset_index(drop=True))
    target.mkdir(parents=True)
    kept["weights"] = [_weights(row, target) for _, row in kept.iterrows()]
    table.write_table(kept.drop(columns="_source"), target / table.FOLDER / "merged.parquet")
    return Merged(len(kept), len(joined) - len(kept), conflicts)


def _with_origin(rows: pd.DataFrame, source: Path) -> pd.DataFrame:
    own = rows[ORIGIN] if ORIGIN in rows else pd.Series([None] * len(rows), dtype="object")
    return rows.assign(**{ORIGIN: own.astype("object").where(own.notna(), source.name)})


def _conflicts(rows: pd.DataFrame, content: pd.DataFrame) -> list[str]:
    """Trials with several rows, and the columns in which these differ."""
    found = []
    for (study, trial, _), same in rows[rows.duplicated(KEY, keep=False)].groupby(KEY, dropna=False):
        differ = [name for name in content.columns if content.loc[same.index, name].nunique(dropna=False) > 1]
        found.append(f"{study}, trial {trial}: {', '.join(same['_source'])} differ in {', '.join(differ)}")
    return found


def _weights(row: pd.Series[Any], target: Path) -> str | None:
    """Copy a row's weights, under the architecture's id; None where they are not there."""
    if pd.isna(row["weights"]) or (file := weights_file(Path(row["_source"]), row["weights"])) is None:
        return None
    if file_sha256(file) != row["weights_sha256"]:
        raise InputError(f"{file}: is not the file that the row of {row['arch_id']} recorded; validate the table")
    place = target / "subnets" / row["arch_id"]
    if place.exists() and file_sha256(place / file.name) != row["weights_sha256"]:
        place = target / "subnets" / f"{row['arch_id']}-{row['weights_sha256'][:12]}"
    if not place.exists():
        shutil.copytree(file.parent, place)
    return str((place / file.name).relative_to(target).as_posix())

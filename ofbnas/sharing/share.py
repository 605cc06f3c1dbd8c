"""Sharing a table: what is sent of it, and the two commands' work."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path, PurePosixPath

import pandas as pd
import pyarrow as pa

from ofbnas import parquet
from ofbnas import table as tables
from ofbnas.errors import InputError
from ofbnas.front import front
from ofbnas.plot import plot_front
from ofbnas.sharing.card import card
from ofbnas.sharing.manifest import (
    CARD,
    FORMAT,
    MANIFEST,
    PICTURE,
    SUBNET_FILES,
    Entry,
    Manifest,
    Weights,
    check_names,
    entry_of,
)
from ofbnas.sharing.remote import local_path, source_at, target_at
from ofbnas.sharing.transfer import Folder, Moved, Tell
from ofbnas.sharing.transfer import pull as get
from ofbnas.sharing.transfer import push as send
from ofbnas.weights import weights_file


@dataclass(frozen=True)
class Share:
    """What is shared of a table.

    Attributes:
        manifest: Its files, weights first.
        files: Each file on disk, by its name in the manifest; and the manifest.
    """

    manifest: Manifest
    files: Mapping[str, Path]


def push(source: str, target: str, *, weights: Weights = "front", tell: Tell) -> Moved:
    """Share a table.

    Args:
        source: A study's folder, or a folder or .parquet file of a table.
        target: A folder, file:///..., s3://BUCKET/PREFIX or hf://datasets/OWNER/NAME[@REVISION][/FOLDER].
        weights: Whose weights go along: those of all rows, of the front's, or of none.
        tell: Is told what is going on, line by line.

    Raises:
        InputError: There is no such table or place, or weights are missing.
        TransferError: Files did not arrive.
    """
    place = target_at(target)
    with tempfile.TemporaryDirectory(prefix="ofbnas-share-") as made:
        share = collect(local_path(source), Path(made), weights, target, tell)
        return send(share.manifest, share.files, place, tell)


def pull(source: str, folder: Path, *, max_size: int, tell: Tell) -> Moved:
    """Get a shared table.

    Args:
        source: What `push` takes as its target, or https://HOST/FOLDER.
        folder: Where it will lie.
        max_size: Refuse more bytes than this.
        tell: Is told what is going on, line by line.

    Raises:
        InputError: There is no shared table, it is too large, or its manifest cannot be believed.
        TransferError: Files did not arrive whole.
    """
    return get(source_at(source), source, Folder(folder), max_size, tell)


def collect(source: Path, made: Path, weights: Weights, address: str, tell: Tell) -> Share:
    """All files of a table that is to be shared; the table itself is written anew, in one file.

    Args:
        source: The table.
        made: An empty folder for what is written.
        weights: Whose weights are shared.
        address: Where it will be found, for its card.
        tell: Is told what is left out.

    Raises:
        InputError: There is no such table, or weights that are asked for are not those recorded, or not here.
    """
    arrow = tables.read_arrow(source)
    rows = tables.to_frame(arrow)
    if rows.empty:
        raise InputError(f"{source}: its table has no rows yet; there is nothing to share")
    home = tables.home(source)
    files: dict[str, Path] = {}
    for _, row in _chosen(rows, weights).iterrows():
        files |= _subnet(source, home, row, weights)
    parquet.write(arrow, made / tables.COMPACT)
    files[tables.COMPACT] = made / tables.COMPACT
    if (history := _history(home)) is not None:
        parquet.write(history, made / tables.COMPACT_HISTORY)
        files[tables.COMPACT_HISTORY] = made / tables.COMPACT_HISTORY
    if _draw(rows, made / PICTURE, tell):
        files[PICTURE] = made / PICTURE
    shared = {str(PurePosixPath(name).parent) for name in files if "/" in name}
    text = card(rows, shared, address, picture=PICTURE in files, history=history is not None)
    (made / CARD).write_text(text, encoding="utf-8")
    files[CARD] = made / CARD
    check_names(files, str(source))
    entries = [_entry(file, name, rows) for name, file in files.items()]
    manifest = Manifest(format=FORMAT, ofbnas=version("ofbnas"), weights=weights, files=entries)
    (made / MANIFEST).write_bytes(manifest.to_bytes())
    return Share(manifest, files | {MANIFEST: made / MANIFEST})


def _chosen(rows: pd.DataFrame, weights: Weights) -> pd.DataFrame:
    """The rows whose weights are shared: for the front, also those that `load_subnet` takes for its ids."""
    if weights == "none" or "weights" not in rows:
        return rows.iloc[:0]
    if weights == "front":
        best = front(rows)
        found = [tables.find(rows, arch_id).to_frame().T for arch_id in best["arch_id"].dropna().unique()]
        rows = pd.concat([best.astype(object), *found], ignore_index=True)
    return rows.dropna(subset=["weights"]).drop_duplicates("weights")


def _subnet(source: Path, home: Path, row: pd.Series[str], weights: Weights) -> dict[str, Path]:
    """The files of a row's weights."""
    path = PurePosixPath(row["weights"])
    weights_file(source, row["weights"])  # refuses a path that leads out
    folder = (home / path).parent
    found = {f"{path.parent}/{name}": folder / name for name in SUBNET_FILES if (folder / name).is_file()}
    if path.name != SUBNET_FILES[1] or not {f"{path.parent}/{name}" for name in SUBNET_FILES[:2]} <= set(found):
        fewer = "--weights front or none" if weights == "all" else "--weights none"
        raise InputError(f"{home}: the weights of {row['arch_id']} are not here ({path}); share it with {fewer}")
    return found


def _entry(file: Path, name: str, rows: pd.DataFrame) -> Entry:
    """A file's entry; weights have to be those that their row recorded."""
    entry = entry_of(file, name)
    recorded = rows[["weights", "weights_sha256"]].dropna() if {"weights", "weights_sha256"} <= set(rows) else rows[:0]
    if any(row["weights"] == name and row["weights_sha256"] != entry.sha256 for _, row in recorded.iterrows()):
        raise InputError(f"{file}: has SHA-256 {entry.sha256}, its row another: the file is not the one recorded")
    return entry


def _history(home: Path) -> pa.Table | None:
    """The histories of all trials in one table, None if there are none."""
    whole = home / tables.COMPACT_HISTORY
    files = sorted((home / tables.HISTORY_FOLDER).glob("*.parquet")) or ([whole] if whole.is_file() else [])
    parts = [parquet.read(file) for file in files]
    return pa.concat_tables(parts, promote_options="permissive") if parts else None


def _draw(rows: pd.DataFrame, out: Path, tell: Tell) -> bool:
    """Draw the front; says so where that cannot be done."""
    try:
        plot_front({"table": rows}, out)
    except InputError as error:
        tell(f"without a picture of the front: {error}")
        return False
    return True

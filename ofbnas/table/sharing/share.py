"""Sharing a table: which of its files are sent, and the work of the commands push and pull."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path, PurePosixPath

import pandas as pd

from ofbnas.errors import InputError
from ofbnas.files import durable
from ofbnas.files.untrusted import inside
from ofbnas.files.weights import CONFIG, SUBNET_FILES, WEIGHTS
from ofbnas.table import layout, parquet, query, store
from ofbnas.table.front import front
from ofbnas.table.history import history_arrow
from ofbnas.table.latency import latency_arrow
from ofbnas.table.plot import plot_front
from ofbnas.table.sharing import transfer
from ofbnas.table.sharing.card import card
from ofbnas.table.sharing.folder import Folder
from ofbnas.table.sharing.manifest import (
    CARD,
    FORMAT,
    MANIFEST,
    PICTURE,
    Entry,
    Manifest,
    Weights,
    check_names,
    entry_of,
)
from ofbnas.table.sharing.place import Notify
from ofbnas.table.sharing.remote import local_path, source_at, target_at
from ofbnas.table.sharing.transfer import Moved


@dataclass(frozen=True)
class Share:
    """The files that are shared of a table.

    Attributes:
        manifest: Their names, sizes and hashes, weights first.
        files: Each file on disk by its name in the manifest, and the manifest itself.
    """

    manifest: Manifest
    files: Mapping[str, Path]


def push(
    source: str,
    target: str,
    *,
    weights: Weights = "front",
    notify: Notify,
) -> Moved:
    """Share a table.

    Args:
        source: A study's folder, or a folder or .parquet file of a table.
        target: A folder, file:///..., s3://BUCKET/PREFIX or
            hf://datasets/OWNER/NAME[@REVISION][/FOLDER].
        weights: Which weights are shared: of all rows, of the front's, or of none.
        notify: Receives lines about the progress.

    Raises:
        InputError: There is no such table or place, or weights are missing.
        TransferError: Files did not arrive complete.
    """
    place = target_at(target)  # an invalid target is refused before any work is done
    table = local_path(source)
    with tempfile.TemporaryDirectory(prefix="ofbnas-share-") as scratch:
        share = collect(table, Path(scratch), weights, target, notify)
        return transfer.push(share.manifest, share.files, place, notify)


def pull(source: str, folder: Path, *, max_size: int, notify: Notify) -> Moved:
    """Download a shared table.

    Args:
        source: What `push` takes as its target, or https://HOST/FOLDER.
        folder: Where to write it.
        max_size: Refuse more bytes than this.
        notify: Receives lines about the progress.

    Raises:
        InputError: There is no shared table, it is too large, or its manifest is invalid.
        TransferError: Files did not arrive complete.
    """
    return transfer.pull(
        source_at(source),
        source,
        Folder(folder),
        max_size,
        notify,
    )


def collect(
    source: Path,
    scratch: Path,
    weights: Weights,
    address: str,
    notify: Notify,
) -> Share:
    """Collect the files of a table to share; rows and histories are written into one file each.

    Args:
        source: The table.
        scratch: An empty folder for the files that are written.
        weights: Which weights are shared.
        address: Where the shared table will be, for its card.
        notify: Receives a line about what is left out.

    Raises:
        InputError: There is no such table, or weights to share are missing or are not those
            recorded.
    """
    arrow = store.read_arrow(source)
    rows = store.to_frame(arrow)
    if rows.empty:
        raise InputError(f"{source}: its table has no rows yet; there is nothing to share")
    home = layout.home(source)

    # The order of the files is that in which they are sent: first the weights, which rows name.
    files: dict[str, Path] = {}
    with_weights = _rows_with_weights(rows, weights)
    for _, row in with_weights.iterrows():
        files |= _subnet_files(source, home, row, weights)
    files[layout.COMPACT] = parquet.write(arrow, scratch / layout.COMPACT)
    beside = {
        layout.COMPACT_HISTORY: history_arrow(source),
        layout.LATENCY: latency_arrow(source),
    }
    for name, measured in beside.items():
        if measured is not None:
            files[name] = parquet.write(measured, scratch / name)
    if _draw(rows, scratch / PICTURE, notify):
        files[PICTURE] = scratch / PICTURE

    shared = {str(PurePosixPath(name).parent) for name in files if "/" in name}
    text = card(rows, shared, address, files)
    files[CARD] = durable.write(scratch / CARD, text)

    check_names(files, str(source))
    entries = [_entry(file, name, rows) for name, file in files.items()]
    manifest = Manifest(
        format=FORMAT,
        ofbnas=version("ofbnas"),
        weights=weights,
        files=entries,
    )
    files[MANIFEST] = durable.write(scratch / MANIFEST, manifest.to_bytes())
    return Share(manifest, files)


def _rows_with_weights(rows: pd.DataFrame, weights: Weights) -> pd.DataFrame:
    """The rows whose weights are shared; each file of weights occurs once."""
    if weights == "none" or "weights" not in rows:
        return rows.iloc[:0]
    if weights == "front":
        best = front(rows)
        parts = [best.astype(object)]
        # `load_subnet` takes the row of an id that is best by validation accuracy, which need not
        # be the one on the front.
        for arch_id in best["arch_id"].dropna().unique():
            row = query.find(rows, arch_id)
            parts.append(row.to_frame().T)
        rows = pd.concat(parts, ignore_index=True)

    known = rows.dropna(subset=["weights"])
    return known.drop_duplicates("weights")


def _subnet_files(
    source: Path,
    home: Path,
    row: pd.Series[str],
    weights: Weights,
) -> dict[str, Path]:
    """The files of a row's subnet, by their names in the shared table; its card may be missing.

    Raises:
        InputError: Its weights or its description are missing.
    """
    path = PurePosixPath(row["weights"])
    files = {}
    for part in SUBNET_FILES:
        name = f"{path.parent}/{part}"
        file = inside(home, name, source)
        if file.is_file():
            files[name] = file

    required = {
        f"{path.parent}/{CONFIG}",
        f"{path.parent}/{WEIGHTS}",
    }
    if path.name != WEIGHTS or not required <= set(files):
        fewer = "--weights front or none" if weights == "all" else "--weights none"
        raise InputError(
            f"{home}: the weights of {row['arch_id']} are not here ({path}); share it with {fewer}"
        )
    return files


def _entry(file: Path, name: str, rows: pd.DataFrame) -> Entry:
    """A file's entry in the manifest.

    Raises:
        InputError: It is a file of weights with another hash than a row records.
    """
    entry = entry_of(file, name)
    if not {"weights", "weights_sha256"} <= set(rows):
        return entry
    is_of_file = rows["weights"] == name
    recorded = rows.loc[is_of_file, "weights_sha256"].dropna()
    if (recorded != entry.sha256).any():
        raise InputError(
            f"{file}: has SHA-256 {entry.sha256}, but its row has another: "
            "the file is not the one recorded"
        )
    return entry


def _draw(rows: pd.DataFrame, out: Path, notify: Notify) -> bool:
    """Draw the front, if possible; otherwise report why not.

    Returns:
        Whether it was drawn.
    """
    try:
        plot_front({"table": rows}, out)
    except InputError as error:
        notify(f"without a picture of the front: {error}")
        return False
    return True

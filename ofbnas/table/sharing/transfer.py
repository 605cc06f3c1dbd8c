"""Transfer of a shared table's files: hashed on the way, written atomically, not sent twice."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ofbnas.errors import InputError, TransferError
from ofbnas.table.sharing.folder import Folder
from ofbnas.table.sharing.manifest import MANIFEST, Entry, Manifest, parse, size_text
from ofbnas.table.sharing.place import (
    GB,
    Notify,
    Source,
    Target,
    file_line,
    read_manifest,
    size_of,
)


@dataclass(frozen=True)
class Moved:
    """What a transfer did.

    Attributes:
        files: Number of files of the shared table, the manifest included.
        size: Their bytes.
        moved_files: Number of files that were transferred because they did not exist yet.
        moved_size: Their bytes.
    """

    files: int
    size: int
    moved_files: int
    moved_size: int


def push(
    manifest: Manifest,
    files: Mapping[str, Path],
    target: Target,
    notify: Notify,
) -> Moved:
    """Send the files that the target does not have yet, the manifest last.

    Args:
        manifest: The files of the shared table.
        files: Each file by its name in the manifest, and the manifest itself.
        target: Where to send them.
        notify: Receives lines about the progress.
    """
    raw = manifest.to_bytes()
    # A manifest that arrives last vouches for all the other files.
    entries = [*manifest.files, _manifest_entry(raw)]
    with target.prepared():
        absent = target.missing(entries)
        notify(_plan("push", entries, absent))
        to_send = {entry: files[entry.path] for entry in absent}
        target.put(to_send, notify)
    return _moved(entries, absent)


def pull(
    source: Source,
    name: str,
    folder: Folder,
    max_size: int,
    notify: Notify,
) -> Moved:
    """Download the files that the folder does not have yet, the manifest last.

    Args:
        source: Where they are.
        name: The source's name, for messages.
        folder: Where to write them.
        max_size: Refuse more bytes than this.
        notify: Receives lines about the progress.

    Raises:
        InputError: There is no shared table, it is too large, or its manifest is invalid.
        TransferError: Files are missing or are not those of the manifest.
    """
    raw = read_manifest(source, name)
    manifest = parse(raw, name)
    size = size_of(manifest.files)
    if size > max_size:
        enough = -(-size // GB)  # rounded up
        raise InputError(
            f"{name}: holds {size_text(size)}, more than the {size_text(max_size)} allowed; "
            f"--max-size {enough} allows it"
        )

    manifest_entry = _manifest_entry(raw)
    entries = [*manifest.files, manifest_entry]
    with folder.prepared():
        absent = folder.missing(entries)
        notify(_plan("pull", entries, absent))
        for entry in absent:
            # The manifest may have changed at the source since, so it is not read again.
            if entry is manifest_entry:
                folder.receive(entry, io.BytesIO(raw), name)
            else:
                _download(entry, source, name, folder)
            notify(file_line(entry))
    return _moved(entries, absent)


def _download(entry: Entry, source: Source, name: str, folder: Folder) -> None:
    """Download a file.

    Raises:
        TransferError: It is missing or is not that of the manifest.
    """
    try:
        with source.open(entry.path) as stream:
            folder.receive(entry, stream, name)
    except FileNotFoundError:
        raise TransferError(f"{name}: {entry.path} is in the manifest but not there") from None


def _manifest_entry(raw: bytes) -> Entry:
    """The entry of the manifest itself, which it cannot list."""
    return Entry(
        path=MANIFEST,
        size=len(raw),
        sha256=hashlib.sha256(raw).hexdigest(),
    )


def _plan(what: str, entries: list[Entry], absent: list[Entry]) -> str:
    """The first line of the progress: how much there is and how much of it is transferred."""
    size = size_text(size_of(entries))
    to_move = size_text(size_of(absent))
    num_existing = len(entries) - len(absent)
    existing = f"; {num_existing} files are there already" if num_existing else ""
    return f"{what}: {len(entries)} files, {size}{existing}; {to_move} to move"


def _moved(entries: list[Entry], moved: list[Entry]) -> Moved:
    return Moved(
        files=len(entries),
        size=size_of(entries),
        moved_files=len(moved),
        moved_size=size_of(moved),
    )

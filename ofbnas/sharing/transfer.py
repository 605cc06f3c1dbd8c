"""Moving the files of a shared table: hashed on the way, never seen in part, not sent twice."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import filelock

from ofbnas.errors import InputError, TransferError
from ofbnas.sharing.manifest import MANIFEST, MAX_BYTES, Entry, Manifest, parse, size_text
from ofbnas.weights import file_sha256

CHUNK = 2**20
GB = 10**9
LOCK, PART = ".transfer.lock", ".ofbnas-part-"

Tell = Callable[[str], None]


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, none at the end."""


class Source(Protocol):
    """A place to read a shared table from."""

    def open(self, path: str) -> AbstractContextManager[Readable]:
        """A file's bytes; FileNotFoundError where there is none."""


class Target(Protocol):
    """A place to share a table at."""

    def held(self) -> AbstractContextManager[None]:
        """Make the place ready; what follows happens inside."""

    def missing(self, files: Iterable[Entry]) -> list[Entry]:
        """Those of the files that are not there with this size and hash, in the same order."""

    def put(self, files: Mapping[Entry, Path], tell: Tell) -> None:
        """Send files in their order; each appears whole or not at all."""


@dataclass(frozen=True)
class Moved:
    """What a transfer did.

    Attributes:
        files: Files of the shared table, the manifest included.
        size: Their bytes.
        moved_files: Those that were not there already.
        moved_size: Their bytes.
    """

    files: int
    size: int
    moved_files: int
    moved_size: int


class Folder:
    """A local folder, as the source or the target of a transfer."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def open(self, path: str) -> Iterator[Readable]:
        """A file's bytes."""
        place = self.path / path
        if not place.is_file():
            raise FileNotFoundError(place)
        with place.open("rb") as file:
            yield file

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other transfers out of the folder, which is made if it is not there.

        Raises:
            InputError: The folder is a study's or holds other files, or another transfer has it.
        """
        if self.path.is_dir():
            held = {place.name for place in self.path.iterdir()}
            if held & {"study.yaml", "architectures"}:
                raise InputError(f"{self.path}: is a study's folder; expected another, where the table is shared")
            if held and not held & {LOCK, MANIFEST}:
                raise InputError(f"{self.path}: holds other files; expected an empty folder or that of a shared table")
        elif self.path.exists():
            raise InputError(f"{self.path}: is a file; expected a folder")
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            with filelock.FileLock(str(self.path / LOCK), timeout=0):
                yield
        except filelock.Timeout:
            raise InputError(f"{self.path}: another transfer is writing into this folder; wait for it") from None

    def missing(self, files: Iterable[Entry]) -> list[Entry]:
        """Those of the files that are not there with this size and hash; removes what a killed transfer left.

        Raises:
            InputError: Links in the folder lead out of it.
            TransferError: The disk is too full for them.
        """
        absent = []
        for entry in files:
            place = self._place(entry.path)
            if place.parent.is_dir():
                for left in place.parent.glob(f"{PART}*"):
                    left.unlink()
            if not (place.is_file() and place.stat().st_size == entry.size and file_sha256(place) == entry.sha256):
                absent.append(entry)
        needed, free = sum(entry.size for entry in absent), shutil.disk_usage(self.path).free
        if needed > free:
            raise TransferError(f"{self.path}: needs {size_text(needed)}, the disk has {size_text(free)} left")
        return absent

    def put(self, files: Mapping[Entry, Path], tell: Tell) -> None:
        """Copy files into the folder."""
        for entry, file in files.items():
            with file.open("rb") as stream:
                self.receive(entry, stream, str(file))
            tell(told(entry))

    def receive(self, entry: Entry, stream: Readable, source: str) -> None:
        """Write a file beside its place and rename it once its size and hash are right.

        Raises:
            InputError: Links in the folder lead out of it.
            TransferError: The bytes are not those of the manifest.
        """
        place = self._place(entry.path)
        place.parent.mkdir(parents=True, exist_ok=True)
        digest, left = hashlib.sha256(), entry.size
        handle, name = tempfile.mkstemp(prefix=PART, dir=place.parent)
        beside = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                while left >= 0 and (chunk := stream.read(min(CHUNK, left + 1))):
                    left -= len(chunk)
                    digest.update(chunk)
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            if left:
                found = "more" if left < 0 else f"{entry.size - left:,}"
                raise TransferError(f"{source}: {entry.path} has {found} bytes, the manifest says {entry.size:,}")
            if digest.hexdigest() != entry.sha256:
                raise TransferError(
                    f"{source}: {entry.path} has SHA-256 {digest.hexdigest()}, the manifest says {entry.sha256}: "
                    "the file is damaged or not the one that was shared"
                )
            beside.chmod(0o644)
            beside.replace(place)
        finally:
            beside.unlink(missing_ok=True)

    def _place(self, path: str) -> Path:
        """Where a file belongs, with no link on the way."""
        place = self.path
        for part in path.split("/"):
            place /= part
            if place.is_symlink():
                raise InputError(f"{place}: is a link; expected none in the folder of a shared table")
        return place


def push(manifest: Manifest, files: Mapping[str, Path], target: Target, tell: Tell) -> Moved:
    """Send what is not there yet, the manifest last.

    Args:
        manifest: What is shared.
        files: Each file by its name in the manifest; and that of the manifest.
        target: Where to.
        tell: Is told what is going on.
    """
    raw = manifest.to_bytes()
    entries = [*manifest.files, _entry(raw)]
    with target.held():
        absent = target.missing(entries)
        tell(_plan("push", entries, absent))
        target.put({entry: files[entry.path] for entry in absent}, tell)
    return _moved(entries, absent)


def pull(source: Source, name: str, folder: Folder, max_size: int, tell: Tell) -> Moved:
    """Get what is not there yet, the manifest last.

    Args:
        source: Where from.
        name: The source's, for messages.
        folder: Where to.
        max_size: Refuse more bytes than this.
        tell: Is told what is going on.

    Raises:
        InputError: There is no shared table, it is too large, or its manifest cannot be believed.
        TransferError: Files are missing or are not those of the manifest.
    """
    raw = _read_manifest(source, name)
    manifest = parse(raw, name)
    size = sum(entry.size for entry in manifest.files)
    if size > max_size:
        raise InputError(
            f"{name}: holds {size_text(size)}, more than the {size_text(max_size)} allowed; "
            f"--max-size {-(-size // GB)} allows it"
        )
    entries = [*manifest.files, _entry(raw)]
    with folder.held():
        absent = folder.missing(entries)
        tell(_plan("pull", entries, absent))
        for entry in absent:
            try:
                last = entry is entries[-1]
                with nullcontext(io.BytesIO(raw)) if last else source.open(entry.path) as stream:
                    folder.receive(entry, stream, name)
            except FileNotFoundError:
                raise TransferError(f"{name}: {entry.path} is in the manifest but not there") from None
            tell(told(entry))
    return _moved(entries, absent)


def told(entry: Entry) -> str:
    """A file that was moved, for people."""
    return f"  {entry.path}  {size_text(entry.size)}"


def _read_manifest(source: Source, name: str) -> bytes:
    """A manifest's bytes, and no more of them than one may have."""
    raw = bytearray()
    try:
        with source.open(MANIFEST) as stream:
            while len(raw) <= MAX_BYTES and (chunk := stream.read(CHUNK)):
                raw += chunk
    except FileNotFoundError:
        raise InputError(
            f"{name}: holds no {MANIFEST}; expected what `ofbnas table push` wrote, to its end (run it again)"
        ) from None
    return bytes(raw)


def _entry(raw: bytes) -> Entry:
    return Entry(path=MANIFEST, size=len(raw), sha256=hashlib.sha256(raw).hexdigest())


def _plan(what: str, entries: list[Entry], absent: list[Entry]) -> str:
    there = f"; {len(entries) - len(absent)} files are there already" if len(absent) < len(entries) else ""
    size, left = sum(entry.size for entry in entries), sum(entry.size for entry in absent)
    return f"{what}: {len(entries)} files, {size_text(size)}{there}; {size_text(left)} to move"


def _moved(entries: list[Entry], moved: list[Entry]) -> Moved:
    return Moved(len(entries), sum(e.size for e in entries), len(moved), sum(e.size for e in moved))

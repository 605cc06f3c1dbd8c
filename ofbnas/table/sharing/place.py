"""What a place has to offer for a shared table to be read from it or written to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from ofbnas.errors import InputError
from ofbnas.table.sharing.manifest import MANIFEST, MAX_BYTES, Entry, size_text

CHUNK = 2**20
GB = 10**9

Notify = Callable[[str], None]  # takes a line about the progress


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""


class Source(Protocol):
    """A place to read a shared table from."""

    def open(self, path: str) -> AbstractContextManager[Readable]:
        """A file's bytes; FileNotFoundError if it does not exist."""


class Target(Protocol):
    """A place to share a table at."""

    def prepared(self) -> AbstractContextManager[None]:
        """Prepare the place; the methods below are called inside of this context."""

    def missing(self, files: Iterable[Entry]) -> list[Entry]:
        """The files that the place does not have with this size and hash, in the given order."""

    def put(self, files: Mapping[Entry, Path], notify: Notify) -> None:
        """Send files in their order; each appears complete or not at all."""


def read_manifest(source: Source, name: str) -> bytes:
    """A manifest's bytes; of one that is too long, enough to see that.

    Raises:
        InputError: There is no manifest.
    """
    raw = bytearray()
    try:
        with source.open(MANIFEST) as stream:
            # A place may belong to a stranger, so no more than the limit and a chunk is read.
            while len(raw) <= MAX_BYTES:
                chunk = stream.read(CHUNK)
                if not chunk:
                    break
                raw += chunk
    except FileNotFoundError:
        raise InputError(
            f"{name}: holds no {MANIFEST}; expected the complete result of `ofbnas table push`; "
            "if it was interrupted, run it again"
        ) from None
    return bytes(raw)


def file_line(entry: Entry) -> str:
    """The line of the progress about a file that was transferred."""
    return f"  {entry.path}  {size_text(entry.size)}"


def size_of(entries: Iterable[Entry]) -> int:
    """Bytes of files."""
    return sum(entry.size for entry in entries)

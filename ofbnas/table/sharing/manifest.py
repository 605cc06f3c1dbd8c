"""The manifest of a shared table: each file's name, size and hash, and which names are valid."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ofbnas.errors import InputError
from ofbnas.files.weights import SUBNET_FILES, file_sha256
from ofbnas.table.layout import COMPACT, COMPACT_HISTORY, LATENCY

FORMAT = 1
MANIFEST = "manifest.json"
CARD = "README.md"
PICTURE = "front.png"
CARD_MARK = "<!-- Written by ofbnas table push; the next push writes it anew. -->"
TABLE_FILES = (COMPACT, COMPACT_HISTORY, LATENCY, PICTURE, CARD)  # beside folders of weights

MAX_BYTES = 16 * 2**20
MAX_FILES = 50_000
MAX_DEPTH = 8

# One part of a path that every file system takes; it is neither hidden nor ends with a dot.
_COMPONENT = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,120}[A-Za-z0-9_-])?")

Weights = Literal["all", "front", "none"]


class Entry(BaseModel):
    """One file.

    Attributes:
        path: Its path relative to the table's folder, with slashes.
        size: Its bytes.
        sha256: Its SHA-256, in hexadecimal.
    """

    model_config = ConfigDict(strict=True, frozen=True)

    path: str = Field(min_length=1, max_length=1000)
    size: int = Field(ge=0, le=2**50)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Manifest(BaseModel):
    """All files that are shared with a table.

    Attributes:
        format: Version of the manifest's format.
        ofbnas: Version of the ofbnas that wrote it.
        weights: Which weights are among the files: of all rows, of the front's, or of none.
        files: The files, without the manifest itself.
    """

    model_config = ConfigDict(strict=True, frozen=True)

    format: int = Field(ge=1)
    ofbnas: str = Field(max_length=100)
    weights: Weights
    files: list[Entry] = Field(max_length=MAX_FILES)

    def to_bytes(self) -> bytes:
        """The content of the manifest's file; equal manifests give equal bytes."""
        return self.model_dump_json(indent=1).encode() + b"\n"


class _Version(BaseModel):
    format: int


def parse(raw: bytes, source: str) -> Manifest:
    """A manifest, which a stranger may have written; everything in it is checked.

    Args:
        raw: At most MAX_BYTES of JSON.
        source: Where it comes from, for messages.

    Raises:
        InputError: It is not a manifest, is one of a newer ofbnas, or lists a file that cannot
            belong to a shared table.
    """
    if len(raw) > MAX_BYTES:
        raise InputError(
            f"{source}: the manifest has more than {MAX_BYTES:,} bytes; this is not a shared table"
        )
    try:
        # A newer format may have other fields, so only its version is read first.
        version = _Version.model_validate_json(raw).format
        if version > FORMAT:
            raise InputError(
                f"{source}: the manifest has format {version}, this ofbnas reads {FORMAT}: "
                "upgrade ofbnas"
            )
        manifest = Manifest.model_validate_json(raw)
    except ValidationError as error:
        details = error.errors(
            include_url=False,
            include_context=False,
            include_input=False,
        )
        first = details[0]
        where = ".".join(map(str, first["loc"])) or "it"
        message = first["msg"][:200]
        raise InputError(
            f"{source}: not a manifest of a shared table: {where}: {message}"
        ) from None
    check_names([entry.path for entry in manifest.files], source)
    return manifest


def check_names(paths: Iterable[str], source: str) -> None:
    """Check that names are those of a shared table's files, on every file system.

    Raises:
        InputError: A name leads out of the folder, is hidden, occurs twice, or is not one that a
            shared table has.
    """
    # Names are compared without case, since some file systems do not tell it apart.
    names: set[str] = set()
    folders: set[str] = set()
    for path in paths:
        parts = path.split("/")
        name = parts[-1]
        known = TABLE_FILES if len(parts) == 1 else SUBNET_FILES
        is_portable = all(_COMPONENT.fullmatch(part) for part in parts)
        if len(parts) > MAX_DEPTH or not is_portable or name not in known:
            raise InputError(
                f"{source}: {path[:200]!r} is not the name of a file in a shared table"
            )

        folded = path.casefold()
        if folded in names:
            raise InputError(f"{source}: names {path[:200]} twice")
        names.add(folded)
        folders.update(str(parent) for parent in PurePosixPath(folded).parents)
    if COMPACT not in names:
        raise InputError(f"{source}: names no {COMPACT}; this is not a shared table")
    both = names & folders
    if both:
        raise InputError(f"{source}: names {min(both)} as a file and as a folder")


def entry_of(file: Path, path: str) -> Entry:
    """The entry of a file on disk that is shared as `path`."""
    return Entry(
        path=path,
        size=file.stat().st_size,
        sha256=file_sha256(file),
    )


def is_own_card(card: Path, listed: Collection[Entry]) -> bool:
    """Whether ofbnas wrote the card of a folder whose manifest lists these files."""
    if CARD_MARK.encode() in card.read_bytes():
        return True
    return entry_of(card, CARD) in listed  # older versions wrote it without the mark


def size_text(num_bytes: int) -> str:
    """A number of bytes for people, such as "1.5 MB"."""
    if num_bytes < 1000:
        return f"{num_bytes} bytes"
    value = num_bytes / 1000
    for unit in ("kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"

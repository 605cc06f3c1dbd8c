"""What is shared with a table: each file's name, size and hash, and which names are believed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ofbnas.errors import InputError
from ofbnas.table import COMPACT, COMPACT_HISTORY
from ofbnas.weights import file_sha256

FORMAT = 1
MANIFEST, CARD, PICTURE = "manifest.json", "README.md", "front.png"
TABLE_FILES = (COMPACT, COMPACT_HISTORY, PICTURE, CARD)  # what may lie in the table's own folder
SUBNET_FILES = ("config.json", "model.safetensors", "README.md")  # what may lie in a folder of weights
MAX_BYTES, MAX_FILES, MAX_DEPTH = 16 * 2**20, 50_000, 8

_COMPONENT = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,120}[A-Za-z0-9_-])?")

Weights = Literal["all", "front", "none"]


class Entry(BaseModel):
    """One file.

    Attributes:
        path: Where it lies, relative to the table's folder, with slashes.
        size: In bytes.
        sha256: In hexadecimal.
    """

    model_config = ConfigDict(strict=True, frozen=True)

    path: str = Field(min_length=1, max_length=1000)
    size: int = Field(ge=0, le=2**50)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Manifest(BaseModel):
    """All files that are shared with a table.

    Attributes:
        format: Version of the manifest's form.
        ofbnas: Version of the ofbnas that wrote it.
        weights: Whose weights are among the files: those of all rows, of the front's, or of none.
        files: The files, the manifest itself left out.
    """

    model_config = ConfigDict(strict=True, frozen=True)

    format: int = Field(ge=1)
    ofbnas: str = Field(max_length=100)
    weights: Weights
    files: list[Entry] = Field(max_length=MAX_FILES)

    def to_bytes(self) -> bytes:
        """The manifest's file; equal manifests give equal bytes."""
        return self.model_dump_json(indent=1).encode() + b"\n"


class _Version(BaseModel):
    format: int


def parse(raw: bytes, source: str) -> Manifest:
    """A manifest that somebody wrote; nothing in it is believed before it is checked.

    Args:
        raw: At most MAX_BYTES of JSON.
        source: Where it is from, for messages.

    Raises:
        InputError: It is no manifest, is one of a newer ofbnas, or names what cannot be part of a shared table.
    """
    if len(raw) > MAX_BYTES:
        raise InputError(f"{source}: the manifest has more than {MAX_BYTES:,} bytes; this is no shared table")
    try:
        if (version := _Version.model_validate_json(raw).format) > FORMAT:
            raise InputError(f"{source}: the manifest has format {version}, this ofbnas reads {FORMAT}: upgrade ofbnas")
        manifest = Manifest.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise InputError(f"{source}: no manifest of a shared table: {where}: {first['msg'][:200]}") from None
    check_names([entry.path for entry in manifest.files], source)
    return manifest


def check_names(paths: Iterable[str], source: str) -> None:
    """See that names are those of a shared table's files, on every system.

    Raises:
        InputError: A name leads out of the folder, is hidden, is there twice, or is none that a shared table has.
    """
    names, folders = set[str](), set[str]()
    for path in paths:
        parts = path.split("/")
        name = parts[-1]
        known = TABLE_FILES if len(parts) == 1 else SUBNET_FILES
        if len(parts) > MAX_DEPTH or not all(map(_COMPONENT.fullmatch, parts)) or name not in known:
            raise InputError(f"{source}: {path[:200]!r} is no name of a file in a shared table")
        if path.casefold() in names:
            raise InputError(f"{source}: names {path[:200]} twice")
        names.add(path.casefold())
        folders |= {str(parent).casefold() for parent in PurePosixPath(path).parents}
    if COMPACT not in names:
        raise InputError(f"{source}: names no {COMPACT}; this is no shared table")
    if both := names & folders:
        raise InputError(f"{source}: names {min(both)} as a file and as a folder")


def entry_of(file: Path, path: str) -> Entry:
    """The entry of a file on disk that is shared as `path`."""
    return Entry(path=path, size=file.stat().st_size, sha256=file_sha256(file))


def size_text(num_bytes: int) -> str:
    """A size for people."""
    value, unit = float(num_bytes), "bytes"
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.3g} {unit}" if unit != "bytes" else f"{num_bytes} bytes"

"""Files that survive a power cut: the only module that gives a written file its final name.

A file is written under a temporary name, synced and renamed, and then its folder is synced. So
after a power cut the file has all of its old content or all of the new, and whatever was written
before it exists too. A file may end with a seal, a checksum that reveals damage when the file is
read.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ofbnas.errors import DamagedError

TEMPORARY = ".writing-"  # prefix of temporary names
SEAL = b"ofbnas sha256:"  # before the digest, at the end of a sealed file
_SEAL_SIZE = len(SEAL) + hashlib.sha256().digest_size
log = logging.getLogger("ofbnas")


@contextmanager
def writing(
    path: Path,
    *,
    sealed: bool = False,
) -> Iterator[IO[bytes]]:
    """A binary file that gets its final name when the block ends.

    If the block fails, an older file of that name is kept.

    Args:
        path: The file; its folder is created if necessary.
        sealed: Whether it ends with a checksum, for `read_sealed`; it must then be written
            sequentially.
    """
    make_folder(path.parent)
    temporary = temporary_path(path)
    try:
        with temporary.open("xb") as file:
            if sealed:
                digested = _Digested(file)
                yield digested  # type: ignore[misc]  # writers only need these methods of a file
                file.write(SEAL + digested.digest.digest())
            else:
                yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write(
    path: Path,
    content: bytes | str,
    *,
    sealed: bool = False,
) -> Path:
    """Write a whole file; text as UTF-8."""
    raw = content
    if isinstance(raw, str):
        raw = raw.encode()
    with writing(path, sealed=sealed) as file:
        file.write(raw)
    return path


def rename(temporary: Path, path: Path) -> None:
    """Give a file, or a folder with all its files, its final name.

    Args:
        temporary: What was written, in the same file system.
        path: Its final name. A file of that name is replaced; a folder must not exist.

    Raises:
        FileExistsError: A folder of that name exists.
    """
    is_folder = temporary.is_dir()
    # The content has to be on the disk before its name is.
    _sync_tree(temporary)

    # The rename itself would silently replace a folder that is empty.
    if is_folder and path.exists():
        raise FileExistsError(path)
    make_folder(path.parent)
    try:
        temporary.replace(path)
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:  # another process was faster
            raise FileExistsError(path) from None
        raise
    sync_folder(path.parent)


def remove(path: Path) -> None:
    """Remove a file or a whole folder, if it exists, durably: no power cut brings it back."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    with suppress(FileNotFoundError):  # the folder above it was removed as well
        sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, durably."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def temporary_path(path: Path) -> Path:
    """A new temporary name beside `path`, which `clear` finds if a killed process left it."""
    suffix = secrets.token_hex(4)
    return path.with_name(f"{TEMPORARY}{path.name}-{suffix}")


def clear(folder: Path, name: str = "") -> None:
    """Remove the unfinished files of killed processes in a folder and below.

    No other process may be writing these files.

    Args:
        folder: Where to look.
        name: Of the files that were being written; by default any.
    """
    pattern = f"{TEMPORARY}{name}*"
    for unfinished in sorted(folder.rglob(pattern)):
        remove(unfinished)


def read_sealed(path: Path) -> bytes:
    """The content of a sealed file.

    Raises:
        DamagedError: Its checksum does not match its content, or it has none.
    """
    raw = path.read_bytes()
    content = raw[:-_SEAL_SIZE]
    seal = raw[-_SEAL_SIZE:]
    expected = SEAL + hashlib.sha256(content).digest()
    if seal != expected:
        raise DamagedError(
            f"{path}: is damaged: its content does not match the checksum it was written with"
        )
    return content


def set_aside(path: Path, why: object) -> Path:
    """Rename a damaged file, so that it can be inspected and replaced, and log that."""
    suffix = secrets.token_hex(4)
    aside = path.with_name(f"{path.name}.damaged-{suffix}")
    path.replace(aside)
    sync_folder(path.parent)
    log.warning("%s; it was renamed to %s and is created anew", why, aside.name)
    return aside


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some file systems can only sync files.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def _sync_tree(path: Path) -> None:
    """Sync a file, or a folder and everything below it."""
    if not path.is_dir():
        _sync_file(path)
        return
    for part in [path, *path.rglob("*")]:
        if part.is_dir():
            sync_folder(part)
        else:
            _sync_file(part)


def _sync_file(file: Path) -> None:
    handle = os.open(file, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class _Digested:
    """A file that is written sequentially, and the SHA-256 of what was written."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.digest = hashlib.sha256()

    def write(self, content: bytes) -> int:
        """Append content."""
        self.digest.update(content)
        return self.file.write(content)

    def flush(self) -> None:
        """Pass buffered bytes on to the operating system."""
        self.file.flush()

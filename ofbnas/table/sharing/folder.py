"""A shared table in a local folder."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import filelock

from ofbnas.errors import InputError, TransferError
from ofbnas.files import durable
from ofbnas.files.untrusted import check_regular
from ofbnas.files.weights import file_sha256
from ofbnas.table.sharing.manifest import (
    CARD,
    MANIFEST,
    TABLE_FILES,
    Entry,
    Manifest,
    is_own_card,
    parse,
    size_text,
)
from ofbnas.table.sharing.place import CHUNK, Notify, Readable, file_line, read_manifest, size_of

LOCK = ".transfer.lock"


class Folder:
    """A local folder, as the source or the target of a transfer."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def open(self, path: str) -> Iterator[Readable]:
        """A file's bytes."""
        file_path = self._path_of(path)
        check_regular(file_path)
        with file_path.open("rb") as file:
            yield file

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Lock the folder against other transfers; it is created if it does not exist.

        Raises:
            InputError: The folder is a study's or has other files, or another transfer has locked
                it.
        """
        self._check_content()
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            with filelock.FileLock(str(self.path / LOCK), timeout=0):
                yield
        except filelock.Timeout:
            raise InputError(
                f"{self.path}: another transfer is writing into this folder; wait for it"
            ) from None

    def _check_content(self) -> None:
        """Check that files may be written here: a transfer replaces those of the same names.

        Raises:
            InputError: The folder is a study's or has other files, or is not a folder.
        """
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise InputError(f"{self.path}: is a file; expected a folder")
        names = {path.name for path in self.path.iterdir()}
        if names & {"study.yaml", "architectures"}:
            raise InputError(
                f"{self.path}: is a study's folder; expected another, where the table is shared"
            )
        if names and not self._is_shared_table(names):
            raise InputError(
                f"{self.path}: holds other files; expected an empty folder "
                "or that of a shared table"
            )

    def _is_shared_table(self, names: set[str]) -> bool:
        """Whether the folder, which holds these names, is a shared table's.

        So is one in which a transfer was interrupted. A manifest has to be one of ours.
        """
        if MANIFEST in names:
            self._path_of(MANIFEST)  # refuses a link
            try:
                self._manifest()
            except InputError:
                return False
            return True

        # A transfer that was interrupted has left its lock, but no manifest, which comes last.
        return LOCK in names and names <= {LOCK, "subnets", *TABLE_FILES}

    def _manifest(self) -> Manifest:
        """The manifest of the shared table in this folder."""
        name = str(self.path)
        return parse(read_manifest(self, name), name)

    def missing(self, files: Iterable[Entry]) -> list[Entry]:
        """The files that do not exist with this size and hash.

        Unfinished files that a killed transfer left are removed.

        Raises:
            InputError: Links in the folder lead out of it, or a card would be replaced that ofbnas
                did not write.
            TransferError: The disk is too full for them.
        """
        absent = []
        for entry in files:
            path = self._path_of(entry.path)
            for unfinished in path.parent.glob(f"{durable.TEMPORARY}*"):
                durable.remove(unfinished)
            if not _is_file_of(entry, path):
                absent.append(entry)
        if CARD in {entry.path for entry in absent}:
            self._check_card()

        needed = size_of(absent)
        free = shutil.disk_usage(self.path).free
        if needed > free:
            raise TransferError(
                f"{self.path}: needs {size_text(needed)}, the disk has {size_text(free)} left"
            )
        return absent

    def put(self, files: Mapping[Entry, Path], notify: Notify) -> None:
        """Copy files into the folder."""
        for entry, file in files.items():
            with file.open("rb") as stream:
                self.receive(entry, stream, str(file))
            notify(file_line(entry))

    def receive(self, entry: Entry, stream: Readable, source: str) -> None:
        """Write a file under a temporary name and rename it once its size and hash are right.

        Args:
            entry: The file, as the manifest describes it.
            stream: Its bytes.
            source: Where they come from, for messages.

        Raises:
            InputError: Links in the folder lead out of it.
            TransferError: The bytes are not those of the manifest.
        """
        digest = hashlib.sha256()
        size = 0
        with durable.writing(self._path_of(entry.path)) as file:
            while size <= entry.size:
                # One byte more than expected suffices to see that a file is too long.
                chunk = stream.read(min(CHUNK, entry.size - size + 1))
                if not chunk:
                    break
                size += len(chunk)
                digest.update(chunk)
                file.write(chunk)

            if size != entry.size:
                given = "more" if size > entry.size else f"{size:,}"
                raise TransferError(
                    f"{source}: {entry.path} has {given} bytes, the manifest says {entry.size:,}"
                )
            sha256 = digest.hexdigest()
            if sha256 != entry.sha256:
                raise TransferError(
                    f"{source}: {entry.path} has SHA-256 {sha256}, the manifest says "
                    f"{entry.sha256}: the file is damaged or not the one that was shared"
                )

    def _check_card(self) -> None:
        """Check that the existing card may be replaced.

        It may if it has our mark. Older versions wrote no mark; a card of theirs may be replaced if
        it is the one in the manifest.

        Raises:
            InputError: It may not.
        """
        card = self._path_of(CARD)
        manifest = self._path_of(MANIFEST)
        check_regular(card)
        listed = self._manifest().files if manifest.exists() else []
        if card.exists() and not is_own_card(card, listed):
            raise InputError(
                f"{card}: was not written by ofbnas, or was changed since; "
                "move it away, or give another folder"
            )

    def _path_of(self, path: str) -> Path:
        """The path of a file in this folder.

        Raises:
            InputError: It leads through a link.
        """
        result = self.path
        for part in path.split("/"):
            result /= part
            if result.is_symlink():
                raise InputError(
                    f"{result}: is a link; expected none in the folder of a shared table"
                )
        return result


def _is_file_of(entry: Entry, path: Path) -> bool:
    """Whether a file exists and is that of an entry."""
    # The size is compared first: it is known without reading the file.
    if not path.is_file() or path.stat().st_size != entry.size:
        return False
    return file_sha256(path) == entry.sha256

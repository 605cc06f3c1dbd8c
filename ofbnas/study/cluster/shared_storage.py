"""Storage that all nodes reach: checkpoints of running trials, and results for the driver."""

from __future__ import annotations

import importlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import fsspec
import psutil
import pyarrow as pa

from ofbnas.errors import InputError, TransferError, one_line
from ofbnas.files import durable
from ofbnas.study.saved_subnet import subnet_folder
from ofbnas.study.trial import checkpoint_folder
from ofbnas.table import layout, parquet

Kind = Literal["checkpoints", "results"]
# Protocols of stores in which an upload becomes visible only when it is complete.
OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "az"}
LOG = "study.log"
DOWNLOAD_PREFIX = ".incoming-"  # of temporary folders that results are downloaded into


class SharedStorage:
    """The files of a study's trials, below one prefix of a file system that fsspec knows."""

    def __init__(self, address: str) -> None:
        """Open the storage; nothing is written.

        Args:
            address: A folder, or a URL of any of fsspec's protocols. S3 takes its credentials and
                endpoint from AWS's own settings.

        Raises:
            InputError: The protocol is unknown, or the package for it is not installed.
        """
        try:
            # Without the cache: other nodes write at the same time.
            self.files, root = fsspec.core.url_to_fs(address, use_listings_cache=False)
        except ImportError as error:
            raise InputError(f"resources.storage_path {address}: {error}") from None
        except ValueError as error:
            raise InputError(
                f"resources.storage_path {address}: {error}; expected a folder or s3://..."
            ) from None
        self.root = root.rstrip("/")
        protocols = _protocols(self.files)
        self.is_folder = "file" in protocols
        self.is_store = bool(OBJECT_STORES & protocols)
        # Absolute for a folder, since trials run in other working directories.
        self.address = self.root if self.is_folder else address
        self.errors: tuple[type[Exception], ...] = (OSError, *_errors(self.files))
        self.uploaded: dict[Path, int] = {}  # modification time of each file, in nanoseconds

    def download(self, kind: Kind, trial: int, folder: Path) -> None:
        """Download all files of a trial into a folder."""
        root = self._prefix(kind, trial)
        with self._transfer_errors():
            for path in self.files.find(root):
                target = folder / path.removeprefix(root).lstrip("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                self.files.get_file(path, str(target))

    def upload(
        self,
        kind: Kind,
        trial: int,
        folder: Path,
        files: list[Path],
    ) -> None:
        """Upload those of a folder's files that have changed since their last upload, in order."""
        for file in files:
            modified = file.stat().st_mtime_ns
            if self.uploaded.get(file) == modified:
                continue
            relative = file.relative_to(folder).as_posix()
            prefix = self._prefix(kind, trial)
            self._put(file, f"{prefix}/{relative}")
            self.uploaded[file] = modified

    def remove(self, kind: Kind, trial: int) -> None:
        """Remove a trial's files."""
        self._remove(self._prefix(kind, trial))

    def remove_all(self) -> None:
        """Remove all of the study's files."""
        self._remove(self.root)

    def results(self) -> list[int]:
        """Numbers of the trials whose results are complete."""
        pattern = f"{self.root}/results/*/{layout.FOLDER}/trial-*.parquet"
        with self._transfer_errors():
            rows = self.files.glob(pattern)

        numbers = [int(Path(row).stem.removeprefix("trial-")) for row in rows]
        return sorted(numbers)

    def has_result(self, trial: int) -> bool:
        """Whether a trial's results are complete: its row is uploaded last."""
        prefix = self._prefix("results", trial)
        row = f"{prefix}/{_row(trial).as_posix()}"
        with self._transfer_errors():
            return bool(self.files.exists(row))

    def size(self) -> int:
        """Bytes of all of the study's files."""
        with self._transfer_errors():
            if not self.files.exists(self.root):
                return 0
            return int(self.files.du(self.root))

    def check(self, name: str) -> None:
        """Write, read and remove a small file.

        Raises:
            InputError: One of these failed.
        """
        path = f"{self.root}/.{name}"
        try:
            with self._transfer_errors():
                self._make_folder(path)
                self.files.pipe_file(path, name.encode())
                content = self.files.cat_file(path)
                if content != name.encode():
                    raise OSError("what was written cannot be read back")
                self.files.rm_file(path)
        except OSError as error:
            raise InputError(str(error)) from None

    def _put(self, file: Path, target: str) -> None:
        """Upload a file such that no reader ever sees a part of it."""
        with self._transfer_errors():
            if self.is_folder:
                with file.open("rb") as content, durable.writing(Path(target)) as copy:
                    shutil.copyfileobj(content, copy)
            elif self.is_store:
                self.files.put_file(str(file), target)
            else:
                # Other file systems show a file while it is written, hence the other name.
                temporary = f"{target}.writing"
                self._make_folder(target)
                self.files.put_file(str(file), temporary)
                self.files.mv(temporary, target)

    def _make_folder(self, path: str) -> None:
        """Make the folder of a file.

        Object stores have no folders, and fsspec would create a bucket from a mistyped name.
        """
        if self.is_store:
            return
        folder = path.rpartition("/")[0]
        self.files.makedirs(folder, exist_ok=True)

    def _remove(self, path: str) -> None:
        """Remove a file or everything below a prefix, if it exists."""
        with self._transfer_errors():
            if self.files.exists(path):
                self.files.rm(path, recursive=True)

    def _prefix(self, kind: Kind, trial: int) -> str:
        """Where the files of one kind of a trial are."""
        return f"{self.root}/{kind}/trial-{trial:05d}"

    @contextmanager
    def _transfer_errors(self) -> Iterator[None]:
        """Raise errors of the file system as a TransferError that names the storage."""
        try:
            yield
        except self.errors as error:
            raise TransferError(
                f"resources.storage_path {self.address}: {one_line(error)}"
            ) from error


@contextmanager
def working_folder(folder: Path, storage: SharedStorage | None, trial: int) -> Iterator[Path]:
    """The folder that a trial works in.

    With a storage it is a temporary folder on this node, into which the trial's checkpoints are
    downloaded; without one it is the study's folder itself.

    Args:
        folder: The study's.
        storage: Where the trial's checkpoints are, if nodes do not share the study's folder.
        trial: Its number.

    Raises:
        TransferError: The checkpoints could not be downloaded.
    """
    if storage is None:
        yield folder
        return
    prefix = f"ofbnas-{Path(storage.root).name}-"
    _remove_folders_of_dead_processes(prefix)

    temporary = Path(tempfile.gettempdir())
    own = temporary / f"{prefix}{trial}-{os.getpid()}"
    shutil.rmtree(own, ignore_errors=True)  # of an earlier process with the same number
    path = own / folder.name
    path.mkdir(parents=True)
    try:
        storage.download("checkpoints", trial, checkpoint_folder(path, trial))
        yield path
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _remove_folders_of_dead_processes(prefix: str) -> None:
    """Remove working folders that killed processes left on this node.

    Their names end in the process' number.
    """
    temporary = Path(tempfile.gettempdir())
    for path in temporary.glob(f"{prefix}*"):
        process = int(path.name.rpartition("-")[2])
        if not psutil.pid_exists(process):
            shutil.rmtree(path, ignore_errors=True)


def upload_checkpoints(folder: Path, storage: SharedStorage | None, trial: int) -> None:
    """Upload the newest checkpoints from a trial's working folder, if there is a storage."""
    if storage is None:
        return
    checkpoints = checkpoint_folder(folder, trial)
    files = sorted(checkpoints.glob("*.pt"))
    storage.upload("checkpoints", trial, checkpoints, files)


def upload_results(folder: Path, storage: SharedStorage | None, trial: int) -> None:
    """Upload the results of a trial that has ended, if there is a storage.

    The row comes last: results with a row are complete.
    """
    if storage is None:
        return
    row = folder / _row(trial)
    others = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != row:
            others.append(path)
    storage.upload("results", trial, folder, [*others, row])


def download_results(folder: Path, storage: SharedStorage, trial: int) -> None:
    """Move a trial's complete results from the storage into the study's folder.

    Results that are in the folder already are kept.
    """
    with tempfile.TemporaryDirectory(prefix=DOWNLOAD_PREFIX, dir=folder) as temporary:
        downloaded = Path(temporary)
        storage.download("results", trial, downloaded)
        if not (folder / _row(trial)).is_file():
            _move_results(downloaded, folder, trial)
    storage.remove("results", trial)


def remove_partial_downloads(folder: Path) -> None:
    """Remove downloads from a study's folder that a killed driver did not finish."""
    for path in folder.glob(f"{DOWNLOAD_PREFIX}*"):
        shutil.rmtree(path)


def _move_results(source: Path, folder: Path, trial: int) -> None:
    """Move a trial's files into the study's folder; the row comes last, as it ends the trial."""
    row = parquet.read(source / _row(trial))
    (weights,) = row["weights"].to_pylist()
    (arch_id,) = row["arch_id"].to_pylist()
    if weights is not None:
        saved = source / Path(weights).parent
        target = subnet_folder(folder, arch_id, trial)
        shutil.rmtree(target, ignore_errors=True)  # left by a driver that was killed right here
        durable.rename(saved, target)

        # The row has the path of the weights relative to the study's folder, which may change.
        moved = target / Path(weights).name
        relative = moved.relative_to(folder).as_posix()
        index = row.schema.get_field_index("weights")
        field = row.schema.field(index)
        row = row.set_column(index, field, pa.array([relative]))

    for file in (source / layout.HISTORY_FOLDER).glob("*.parquet"):
        durable.rename(file, folder / layout.HISTORY_FOLDER / file.name)
    own_log = source / LOG
    if own_log.is_file():
        with (folder / LOG).open("a", encoding="utf-8") as log:
            log.write(own_log.read_text(encoding="utf-8"))
    parquet.write(row, folder / _row(trial))


def _row(trial: int) -> Path:
    """The file of a trial's row, relative to the study's folder."""
    return Path(layout.FOLDER) / layout.trial_file(trial)


def _protocols(files: Any) -> set[str]:
    """The names of a file system's protocol, such as "s3" and "s3a"."""
    if isinstance(files.protocol, str):
        return {files.protocol}
    return set(files.protocol)


def _errors(files: Any) -> tuple[type[Exception], ...]:
    """What a file system raises that is not an OSError."""
    if not {"s3", "s3a"} & _protocols(files):
        return ()
    # Not imported at the top: only users of S3 have the package.
    module = importlib.import_module("botocore.exceptions")
    return (module.BotoCoreError,)

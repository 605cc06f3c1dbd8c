"""A place that all nodes reach: checkpoints of running trials lie there, and results until the driver has them."""

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

from ofbnas import parquet, table
from ofbnas.errors import InputError, TransferError
from ofbnas.trial import checkpoint_folder, subnet_folder

Kind = Literal["checkpoints", "results"]
OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "az"}  # where a file is only seen when all of it is there
LOG = "study.log"
INCOMING = ".incoming-"  # beginning of folders that results arrive in


class SharedStorage:
    """What trials leave in a study's own prefix of a place that fsspec knows."""

    def __init__(self, address: str) -> None:
        """Open a place; nothing is written.

        Args:
            address: A folder, or a URL of any of fsspec's protocols. S3 takes its credentials and endpoint from
                AWS's own settings.

        Raises:
            InputError: The address is of no known kind, or what reads it is not installed.
        """
        try:
            self.files, root = fsspec.core.url_to_fs(address, use_listings_cache=False)
        except ImportError as error:
            raise InputError(f"resources.storage_path {address}: {error}") from None
        except ValueError as error:
            raise InputError(f"resources.storage_path {address}: {error}; expected a folder or s3://...") from None
        self.root = root.rstrip("/")
        self.address = self.root if "file" in _protocols(self.files) else address  # trials have other working folders
        self.errors: tuple[type[Exception], ...] = (OSError, *_errors(self.files))
        self.sent: dict[Path, int] = {}
        self.is_store = bool(OBJECT_STORES & set(_protocols(self.files)))

    def fetch(self, kind: Kind, trial: int, folder: Path) -> None:
        """Copy all files of a trial into a folder."""
        root = self._place(kind, trial)
        with self._held():
            for found in self.files.find(root):
                target = folder / found.removeprefix(root).lstrip("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                self.files.get_file(found, str(target))

    def send(self, kind: Kind, trial: int, folder: Path, files: list[Path]) -> None:
        """Copy those of a folder's files that have changed since they were sent, in their order."""
        for file in files:
            stamp = file.stat().st_mtime_ns
            if self.sent.get(file) != stamp:
                self._put(file, f"{self._place(kind, trial)}/{file.relative_to(folder).as_posix()}")
                self.sent[file] = stamp

    def drop(self, kind: Kind, trial: int) -> None:
        """Remove a trial's files."""
        self._remove(self._place(kind, trial))

    def drop_all(self) -> None:
        """Remove all that the study left."""
        self._remove(self.root)

    def results(self) -> list[int]:
        """Trials whose results lie here whole."""
        with self._held():
            rows = self.files.glob(f"{self.root}/results/*/{table.FOLDER}/trial-*.parquet")
        return sorted(int(Path(row).stem.removeprefix("trial-")) for row in rows)

    def has_result(self, trial: int) -> bool:
        """Whether a trial's results lie here whole."""
        with self._held():
            return bool(self.files.exists(f"{self._place('results', trial)}/{_row(trial).as_posix()}"))

    def size(self) -> int:
        """Bytes of all that the study left."""
        with self._held():
            return int(self.files.du(self.root)) if self.files.exists(self.root) else 0

    def check(self, name: str) -> None:
        """Write, read and remove a small file.

        Raises:
            InputError: That cannot be done.
        """
        place = f"{self.root}/.{name}"
        try:
            with self._held():
                self._make_folder(place)
                self.files.pipe_file(place, name.encode())
                if self.files.cat_file(place) != name.encode():
                    raise OSError("what was written cannot be read back")
                self.files.rm_file(place)
        except OSError as error:
            raise InputError(str(error)) from None

    def _put(self, file: Path, place: str) -> None:
        with self._held():
            self._make_folder(place)
            self.files.put_file(str(file), place if self.is_store else f"{place}.writing")
            if not self.is_store:
                self.files.mv(f"{place}.writing", place)

    def _make_folder(self, place: str) -> None:
        """Make the folder of a file; a store has none, and must not make a bucket of a mistyped name."""
        if not self.is_store:
            self.files.makedirs(place.rpartition("/")[0], exist_ok=True)

    def _remove(self, place: str) -> None:
        with self._held():
            if self.files.exists(place):
                self.files.rm(place, recursive=True)

    def _place(self, kind: Kind, trial: int) -> str:
        return f"{self.root}/{kind}/trial-{trial:05d}"

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Errors of the place as one of ours, which tells where."""
        try:
            yield
        except self.errors as error:
            line = " ".join(str(error).split()) or type(error).__name__
            raise TransferError(f"resources.storage_path {self.address}: {line}") from error


@contextmanager
def workplace(folder: Path, storage: SharedStorage | None, trial: int) -> Iterator[Path]:
    """Where a trial works: the study's folder, or one of this node that begins with the trial's checkpoints.

    Args:
        folder: The study's.
        storage: Where checkpoints lie, if nodes do not share the folder.
        trial: Its number.
    """
    if storage is None:
        yield folder
        return
    begins = f"ofbnas-{Path(storage.root).name}-"
    for left in Path(tempfile.gettempdir()).glob(f"{begins}*"):
        if not psutil.pid_exists(int(left.name.rpartition("-")[2])):  # a process that was killed
            shutil.rmtree(left, ignore_errors=True)
    own = Path(tempfile.gettempdir()) / f"{begins}{trial}-{os.getpid()}"
    shutil.rmtree(own, ignore_errors=True)
    place = own / folder.name
    place.mkdir(parents=True)
    try:
        storage.fetch("checkpoints", trial, checkpoint_folder(place, trial))
        yield place
    finally:
        shutil.rmtree(own, ignore_errors=True)


def keep(place: Path, storage: SharedStorage | None, trial: int) -> None:
    """Bring a trial's newest checkpoints to safety."""
    if storage is not None:
        folder = checkpoint_folder(place, trial)
        storage.send("checkpoints", trial, folder, sorted(folder.glob("*.pt")))


def deliver(place: Path, storage: SharedStorage | None, trial: int) -> None:
    """Hand over the results of a trial that is over; its row comes last."""
    if storage is not None:
        row = place / _row(trial)
        files = sorted(file for file in place.rglob("*") if file.is_file() and file != row)
        storage.send("results", trial, place, [*files, row])


def collect(folder: Path, storage: SharedStorage, trial: int) -> None:
    """Move a trial's results, which lie there whole, into the study's folder; what is there already stays."""
    with tempfile.TemporaryDirectory(prefix=INCOMING, dir=folder) as own:
        place = Path(own)
        storage.fetch("results", trial, place)
        if not (folder / _row(trial)).is_file():
            _take(place, folder, trial)
    storage.drop("results", trial)


def drop_incoming(folder: Path) -> None:
    """Remove what a driver that was killed had begun to move into a study's folder."""
    for left in folder.glob(f"{INCOMING}*"):
        shutil.rmtree(left)


def _take(place: Path, folder: Path, trial: int) -> None:
    """Move a trial's files from one study's folder into another."""
    row = parquet.read(place / _row(trial))
    (weights,) = row["weights"].to_pylist()
    if weights is not None:
        saved = place / Path(weights).parent
        target = subnet_folder(folder, row["arch_id"][0].as_py(), trial)
        shutil.rmtree(target, ignore_errors=True)  # left by a driver that was killed right here
        target.parent.mkdir(exist_ok=True)
        saved.rename(target)
        moved = (target / Path(weights).name).relative_to(folder).as_posix()
        column = row.schema.get_field_index("weights")
        row = row.set_column(column, row.schema.field(column), pa.array([moved]))
    for file in (place / table.HISTORY_FOLDER).glob("*.parquet"):
        (folder / table.HISTORY_FOLDER).mkdir(exist_ok=True)
        file.replace(folder / table.HISTORY_FOLDER / file.name)
    if (place / LOG).is_file():
        with (folder / LOG).open("a", encoding="utf-8") as log:
            log.write((place / LOG).read_text(encoding="utf-8"))
    parquet.write(row, folder / _row(trial))


def _row(trial: int) -> Path:
    return Path(table.FOLDER) / table.trial_file(trial)


def _protocols(files: Any) -> tuple[str, ...]:
    return (files.protocol,) if isinstance(files.protocol, str) else tuple(files.protocol)


def _errors(files: Any) -> tuple[type[Exception], ...]:
    """What a file system raises beside OSError."""
    if not {"s3", "s3a"} & set(_protocols(files)):
        return ()
    return (importlib.import_module("botocore.exceptions").BotoCoreError,)

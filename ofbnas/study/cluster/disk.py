"""Reasons to end a study for which no trial is to blame: a full disk, a lost folder or storage."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ofbnas.errors import DiskBudgetError, DiskFullError, FolderLostError, TransferError
from ofbnas.study.cluster.shared_storage import SharedStorage
from ofbnas.study.cluster.tune_import import tune

Reason = DiskFullError | FolderLostError | TransferError
LOOK_EVERY = 5.0  # seconds between two measurements of the folder's size


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    total = 0
    for path in folder.rglob("*"):
        try:
            if path.is_file():
                total += path.stat().st_size
        except FileNotFoundError:  # removed since it was listed
            continue
    return total


class EarlyEnd(tune.Stopper):  # type: ignore[misc]  # ray has no types
    """Ends a study whose folder or disk is full, or whose folder or shared storage is lost.

    Attributes:
        why: The reason to end the study, or None.
    """

    def __init__(
        self,
        folder: Path,
        storage: SharedStorage | None,
        limit_gb: float | None,
    ) -> None:
        """Watch a study.

        Args:
            folder: Its folder.
            storage: Its shared storage, whose size counts as well.
            limit_gb: Allowed size of both together, in 10^9 bytes; None for no limit.
        """
        self.folder = folder
        self.storage = storage
        self.limit_gb = limit_gb
        self.why: Reason | None = None
        self.looked = -LOOK_EVERY

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Check the disk on a trial's report; never stops that trial alone."""
        if result.get("phase") == "full":
            self.say_full(result["host"])
        elif time.monotonic() - self.looked >= LOOK_EVERY:
            self.look()
        return False

    def stop_all(self) -> bool:
        """Whether the study ends."""
        return self.why is not None

    def say(self, why: Reason) -> None:
        """End the study; only the first reason is reported."""
        self.why = self.why or why

    def look(self) -> None:
        """End the study if its folder is gone, or has reached the allowed size."""
        self.looked = time.monotonic()
        if self.is_gone() or self.limit_gb is None:
            return

        size = size_of(self.folder)
        if self.storage is not None:
            size += self.storage.size()
        size_gb = size / 1e9
        if size_gb >= self.limit_gb:
            allowed = f"the {self.limit_gb:g} GB that resources.disk_gb allows"
            message = f"it holds {size_gb:.3g} GB of {allowed}; raise it, or make room"
            self.say(DiskBudgetError(message))

    def is_gone(self) -> bool:
        """Whether the study's folder is gone, which ends the study."""
        is_gone = not (self.folder / "study.yaml").is_file()
        if is_gone:
            self.say(FolderLostError("its folder was removed or replaced while it ran"))
        return is_gone

    def say_full(self, where: object) -> None:
        """End the study because a disk is full.

        Args:
            where: The node or the folder of that disk.
        """
        free = shutil.disk_usage(self.folder).free / 1e9
        room = f"{free:.3g} GB are free where the study's folder is"
        message = f"the disk of {where} is full ({room}); make room"
        self.say(DiskFullError(message))

    def check(self, done: int, wanted: int) -> None:
        """Raise the reason for which the study ended, if there is one.

        A study that has all its trials needs no more room, so its disk budget is no reason.

        Raises:
            DiskFullError: A disk is full, or the disk budget is used up.
            FolderLostError: The study's folder is gone.
            TransferError: The shared storage is lost.
        """
        if self.why is None:
            return
        if isinstance(self.why, DiskBudgetError) and done >= wanted:
            return
        remedy = "the same command resumes"
        if isinstance(self.why, FolderLostError):
            remedy = "remove what is left of the folder, and run the study again"
        raise type(self.why)(
            f"{self.folder}: stopped after {done} of {wanted} trials: {self.why}; {remedy}"
        )

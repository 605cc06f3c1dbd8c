"""What ends a study before its time without being any trial's fault: a full disk, a lost storage."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ofbnas.errors import DiskFullError, TransferError, causes
from ofbnas.sweep.ray_quietly import tune
from ofbnas.sweep.shared import SharedStorage

FULL = (errno.ENOSPC, errno.EDQUOT)
SAYS = ("No space left on device", "Disk quota exceeded")  # torch and safetensors give no number
LOOK_EVERY = 5.0  # seconds between two looks at the folder's size


def is_full(error: BaseException | None) -> bool:
    """Whether an exception, or what led to it, says that a disk is full."""
    return any(
        getattr(cause, "errno", None) in FULL or any(words in str(cause) for words in SAYS) for cause in causes(error)
    )


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.stat().st_size if file.is_file() else 0
        except FileNotFoundError:  # removed meanwhile
            continue
    return total


class EarlyEnd(tune.Stopper):  # type: ignore[misc]  # ray has no types
    """Ends a study whose folder is as large as it may be, that finds no room, or whose shared storage is gone.

    Attributes:
        why: What the study ends with, or None.
    """

    def __init__(self, folder: Path, storage: SharedStorage | None, limit_gb: float | None) -> None:
        """Watch a study.

        Args:
            folder: Its folder.
            storage: Its shared storage, which counts as well.
            limit_gb: What both together may hold, 10^9 bytes.
        """
        self.folder, self.storage, self.limit_gb = folder, storage, limit_gb
        self.why: DiskFullError | TransferError | None = None
        self.looked = -LOOK_EVERY

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Look whether there is room; no trial is ended alone."""
        if result.get("phase") == "full":
            self.say_full(result["place"])
        elif time.monotonic() - self.looked >= LOOK_EVERY:
            self.look()
        return False

    def stop_all(self) -> bool:
        """Whether the study ends."""
        return self.why is not None

    def say(self, why: DiskFullError | TransferError) -> None:
        """End the study; the first reason is the one that is told."""
        self.why = self.why or why

    def look(self) -> None:
        """End the study if its folder is as large as it may be."""
        self.looked = time.monotonic()
        if self.limit_gb is None:
            return
        size = (size_of(self.folder) + (0 if self.storage is None else self.storage.size())) / 1e9
        if size >= self.limit_gb:
            allowed = f"the {self.limit_gb:g} GB that resources.disk_gb allows"
            self.say(DiskFullError(f"it holds {size:.3g} GB of {allowed}; raise it, or make room"))

    def say_full(self, place: object) -> None:
        """End the study: a disk is full."""
        free = shutil.disk_usage(self.folder).free / 1e9
        self.say(
            DiskFullError(
                f"the disk of {place} is full ({free:.3g} GB are free where the study's folder is); make room"
            )
        )

    def check(self, done: int, wanted: int) -> None:
        """Raise what the study ends with.

        Raises:
            DiskFullError: There is no room.
            TransferError: The shared storage is gone.
        """
        if self.why is not None:
            raise type(self.why)(
                f"{self.folder}: stopped after {done} of {wanted} trials: {self.why}; the same command goes on"
            )

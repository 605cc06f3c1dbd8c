"""Disks that are full, and the budget a study has for its folder."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ofbnas.errors import causes
from ofbnas.sweep.ray_quietly import tune

FULL = (errno.ENOSPC, errno.EDQUOT)
SAYS = ("No space left on device", "Disk quota exceeded")  # torch and safetensors give no number
LOOK_EVERY = 10.0  # seconds between two looks at the folder's size


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


class StopWhenFull(tune.Stopper):  # type: ignore[misc]  # ray has no types
    """Ends a study whose folder is as large as it may be, or that a trial found no room in.

    Attributes:
        reason: Why it ends, or None.
    """

    def __init__(self, folder: Path, limit_gb: float | None) -> None:
        self.folder, self.limit_gb = folder, limit_gb
        self.reason: str | None = None
        self.looked = -LOOK_EVERY

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Look whether there is room; no trial is ended alone."""
        if result.get("phase") == "full":
            self.say_full(result["place"])
        elif time.monotonic() - self.looked >= LOOK_EVERY or result.get("phase") == "ended":
            self.looked = time.monotonic()
            self.reason = self.reason or self.excess()
        return False

    def stop_all(self) -> bool:
        """Whether the study ends."""
        return self.reason is not None

    def excess(self) -> str | None:
        """What is wrong with the folder's size, if anything."""
        if self.limit_gb is None or (size := size_of(self.folder) / 1e9) < self.limit_gb:
            return None
        return f"its folder holds {size:.3g} GB of the {self.limit_gb:g} GB that resources.disk_gb allows"

    def say_full(self, place: str | None = None) -> None:
        """A disk is full."""
        free = shutil.disk_usage(self.folder).free / 1e9
        self.reason = f"the disk of {place or self.folder} is full ({free:.3g} GB are free where the study's folder is)"

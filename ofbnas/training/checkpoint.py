"""Checkpoints of training runs: plain tensors in sealed files, read without running code."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from ofbnas import parallel
from ofbnas.errors import DamagedError, InputError
from ofbnas.files import durable

Result = TypeVar("Result")
log = logging.getLogger("ofbnas")


class StaleCheckpointError(InputError):
    """A checkpoint belongs to a run with other settings.

    Attributes:
        path: The checkpoint.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path}: was written by a run with other settings; delete it, or use the same settings"
        )
        self.path = path


def save_checkpoint(
    path: Path,
    state: Mapping[str, Any],
    settings: str,
) -> None:
    """Write a checkpoint in the first process; it replaces the previous one once it is on disk.

    Args:
        path: Path of the checkpoint.
        state: Plain tensors and values.
        settings: The run's settings; `load_checkpoint` accepts the same only.
    """
    if parallel.shard().rank != 0:
        return
    # Sealed with a checksum, so that a file damaged on disk is not resumed from.
    with durable.writing(path, sealed=True) as file:
        torch.save({**state, "settings": settings}, file)


def load_checkpoint(
    path: Path | None,
    settings: str,
    device: torch.device | str = "cpu",
) -> dict[str, Any] | None:
    """Read a checkpoint; None if there is none, or if it was damaged and has been set aside.

    The first process reads it for all: another machine may not see the file yet, or at all.

    Args:
        path: Path of the checkpoint, if the run has one.
        settings: The run's settings.
        device: Where tensors are placed.

    Raises:
        StaleCheckpointError: It belongs to a run with other settings.
    """
    content = None
    is_first_process = parallel.shard().rank == 0
    if path is not None and is_first_process:
        content = _intact(path)
    content = parallel.from_first(content)
    if content is None or path is None:
        return None
    # With `weights_only`, unpickling runs no code of the file.
    state: dict[str, Any] = torch.load(
        io.BytesIO(content),
        map_location=device,
        weights_only=True,
    )
    if state.pop("settings") != settings:
        raise StaleCheckpointError(path)
    if "epoch" in state:
        log.info("%s: %s resumes after epoch %d", path.parent.name, path.stem, state["epoch"])
    return state


def readdress(path: Path, was: str, now: str) -> None:
    """Make the checkpoint of one run that of another, which goes on with other settings.

    Args:
        path: The checkpoint; a damaged one is set aside.
        was: Settings of the run that wrote it.
        now: Settings of the run that goes on.

    Raises:
        StaleCheckpointError: It belongs to a run with settings other than `was`.
    """
    state = load_checkpoint(path, was)
    if state is not None:
        save_checkpoint(path, state, now)


def restart_if_stale(run: Callable[[], Result]) -> Result:
    """Run what resumes from a checkpoint; if that is stale, set it aside and start over.

    A trial meets a stale checkpoint where its number was given out twice, because the journal lost
    its end or settings changed.
    """
    try:
        return run()
    except StaleCheckpointError as error:
        if parallel.shard().rank == 0:
            durable.set_aside(error.path, error)
    return run()


def _intact(path: Path) -> bytes | None:
    """A checkpoint's content; None if there is none, or it was damaged and has been set aside."""
    try:
        return durable.read_sealed(path)
    except FileNotFoundError:
        return None
    except DamagedError as error:
        durable.set_aside(path, error)
        return None

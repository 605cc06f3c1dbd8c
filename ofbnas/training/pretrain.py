"""Training of a study's parent: done once, resumed if interrupted, and cached."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import filelock
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from ofbnas import parallel
from ofbnas.config import TrainConfig
from ofbnas.errors import DamagedError, InputError, one_line
from ofbnas.files import durable
from ofbnas.training.checkpoint import restart_if_stale
from ofbnas.training.data import Data
from ofbnas.training.events import Callback
from ofbnas.training.plain import fit

# Disk space for checkpoints, in units of the weights' size. Each checkpoint holds weights, their
# average and two moments, and the previous one stays until the next is on disk.
WEIGHTS_NEEDED = 8
log = logging.getLogger("ofbnas")


def load_or_train_(
    model: nn.Module,
    data: Data,
    config: TrainConfig,
    *,
    seed: int,
    file: Path,
    callbacks: Sequence[Callback] = (),
) -> None:
    """Load a model's trained weights from the cache, in place; train it if they are not there.

    An interrupted training is resumed from its last epoch. If several processes need the same
    parent, one trains it and the others wait.

    Args:
        model: With fresh weights; on the data's device afterwards.
        data: The data set to train on.
        config: Configuration of the training.
        seed: Random seed of the training.
        file: The model's file in the cache.
        callbacks: Called at each event.

    Raises:
        InputError: The cache cannot be written, or has no room.
    """
    model.to(data.device)
    checkpoint = file.with_suffix(".training")
    with _locked(file):
        if parallel.shard().rank == 0:
            for unfinished in (file, checkpoint):  # of a training that was killed
                durable.clear(file.parent, unfinished.name)
        # Looked up under the lock: another process may have trained it while this one waited.
        content = parallel.from_first(_cached(file))
        if content is not None:
            model.load_state_dict(load(content))
            return
        torch.manual_seed(seed)
        training = partial(
            fit,
            model,
            data,
            config,
            seed=seed,
            callbacks=callbacks,
            checkpoint=checkpoint,
        )
        restart_if_stale(training)
        if parallel.shard().rank == 0:
            tensors: dict[str, Tensor] = {}
            for name, tensor in model.state_dict().items():
                tensors[name] = tensor.cpu().contiguous()
            durable.write(file, save(tensors), sealed=True)
            durable.remove(checkpoint)


def check_cache(model: nn.Module, file: Path) -> None:
    """Check that a training of `model` will be able to write its checkpoints and its result.

    Raises:
        InputError: The cache cannot be written, or has no room.
    """
    probe = file.with_suffix(f".{os.getpid()}.probe")
    try:
        durable.write(probe, b"")
        durable.remove(probe)
    except OSError as error:
        raise InputError(
            f"{file.parent}: the cache of parents cannot be written ({one_line(error)}); "
            "set OFBNAS_CACHE to a folder that can"
        ) from None
    check_room(file.parent, model, "set OFBNAS_CACHE to a folder with more")


def check_room(
    folder: Path,
    model: nn.Module,
    remedy: str,
) -> None:
    """Check that a folder has room for the checkpoints of a training.

    Args:
        folder: The folder.
        model: The model to train.
        remedy: What a user can do besides making room, for the message.

    Raises:
        InputError: It has too little room.
    """
    tensors = model.state_dict().values()
    weights = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    needed = WEIGHTS_NEEDED * weights  # bytes
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{folder}: has {free / 1e9:.3g} GB free, and checkpoints of this model need "
            f"{needed / 1e9:.3g} GB; make room, or {remedy}"
        )


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Let one training at a time write a file of the cache.

    The first process of a run takes the lock, and all wait for it.
    """
    if parallel.shard().rank == 0:
        durable.make_folder(file.parent)
    lock = filelock.FileLock(str(file.with_suffix(".lock")))
    try:
        if not _acquired(lock, seconds=0):
            log.info("another process trains the parent %s; waiting for it", file.stem)
            while not _acquired(lock, seconds=1):
                pass
        yield
    finally:
        lock.release()


def _acquired(lock: filelock.BaseFileLock, seconds: float) -> bool:
    """Whether the first process could take a lock in time.

    The others hear of each try, so that none of them takes the first process for dead.
    """
    held = None
    if parallel.shard().rank == 0:
        with suppress(filelock.Timeout):
            lock.acquire(timeout=seconds)
            held = b"held"
    return parallel.from_first(held) is not None


def _cached(file: Path) -> bytes | None:
    """A file of the cache, in the first process; None if it is missing, or set aside as damaged."""
    if parallel.shard().rank != 0:
        return None
    try:
        return durable.read_sealed(file)
    except FileNotFoundError:
        return None
    except DamagedError as error:
        durable.set_aside(file, error)
        return None

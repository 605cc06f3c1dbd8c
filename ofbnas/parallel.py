"""Several processes that train one model: under torchrun each takes its shard of every batch."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from ofbnas.errors import InputError, WorkerLostError

TIMEOUT = "OFBNAS_RANK_TIMEOUT"  # environment variable: seconds that processes wait for each other
DEFAULT_TIMEOUT = 1800.0


class Shard(NamedTuple):
    """One process of several.

    Attributes:
        rank: Its number, from 0.
        world: Number of processes.
    """

    rank: int = 0
    world: int = 1

    def of(self, count: int) -> slice:
        """This process' part of `count` items, which are dealt out in turn."""
        return slice(self.rank, count, self.world)


def shard() -> Shard:
    """This process among those it trains with."""
    if not dist.is_initialized():
        return Shard()
    return Shard(dist.get_rank(), dist.get_world_size())


@contextmanager
def joined() -> Iterator[torch.device]:
    """Join the process group that torchrun has set up, if any, and yield this process' device.

    Raises:
        WorkerLostError: Another process died, or did not answer in time.
    """
    has_cuda = torch.cuda.is_available()
    local_rank = os.environ.get("LOCAL_RANK")
    if local_rank is None:
        yield torch.device("cuda" if has_cuda else "cpu")
        return

    device = torch.device("cpu")
    backend = "gloo"
    if has_cuda:
        device = torch.device(f"cuda:{local_rank}")
        torch.cuda.set_device(device)
        backend = "nccl"
    limit = timeout()
    try:
        with _lost_workers():
            dist.init_process_group(backend, timeout=limit)
        yield device
    except WorkerLostError as error:
        raise WorkerLostError(f"{error}; start again with the same command to resume") from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def timeout() -> timedelta:
    """How long processes wait for each other, at the rendezvous or in a collective.

    Raises:
        InputError: The environment variable is not a number of seconds.
    """
    given = os.environ.get(TIMEOUT, "")
    try:
        seconds = float(given or DEFAULT_TIMEOUT)
        if seconds >= 1:  # a busy machine would exceed less than that
            return timedelta(seconds=seconds)
    except (ValueError, OverflowError):
        pass
    raise InputError(
        f"{TIMEOUT} is {given!r}, expected the seconds that processes wait for each other, "
        "at least 1"
    )


@contextmanager
def _lost_workers() -> Iterator[None]:
    """Turn errors of collectives, which torch raises as RuntimeError, into WorkerLostError.

    Raises:
        WorkerLostError: Another process died, or did not answer in time.
    """
    try:
        yield
    except RuntimeError as error:
        # Subclasses such as OutOfMemoryError are errors of this process itself.
        if type(error) is not RuntimeError and not isinstance(error, dist.DistError):
            raise
        # Only the first sentence: gloo puts "[FILE:LINE]" before it, and C++ its stack after it.
        why = re.sub(r"^\[\S*\] |(\. |\n).*", "", str(error), flags=re.DOTALL)[:160]
        seconds = timeout().total_seconds()
        raise WorkerLostError(
            f"another process of this training died, or did not answer within {seconds:g} s ({why})"
        ) from error


def rendezvous(host: str, port: int, world: int, *, first: bool = False) -> Any:
    """Open the TCP store through which the processes of a group find each other.

    Args:
        host: Address of the first process' machine.
        port: Port of the store; the first process may give 0 for a free one.
        world: Number of processes in the group.
        first: Whether this is the first process, which serves the store.

    Raises:
        WorkerLostError: The store did not answer in time.
    """
    untyped: Any = dist
    with _lost_workers():
        return untyped.TCPStore(
            host, port, world, is_master=first, wait_for_workers=False, timeout=timeout()
        )


@contextmanager
def process_group(store: Any, rank: int, world: int, device: torch.device) -> Iterator[None]:
    """Join a process group while the block runs.

    Args:
        store: The store of the group's rendezvous.
        rank: This process' number.
        world: Number of processes.
        device: This process' device.

    Raises:
        WorkerLostError: Another process died, or did not answer in time.
    """
    backend = "nccl" if device.type == "cuda" else "gloo"
    limit = timeout()
    try:
        with _lost_workers():
            dist.init_process_group(
                backend, store=store, rank=rank, world_size=world, timeout=limit
            )
        yield
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def total_(tensor: Tensor) -> Tensor:
    """Sum a tensor over all processes, in place."""
    if dist.is_initialized():
        with _lost_workers():
            dist.all_reduce(tensor)
    return tensor


def from_first(value: bytes | None) -> bytes | None:
    """The first process' value, in every process."""
    if not dist.is_initialized():
        return value
    values = [value]
    with _lost_workers():
        dist.broadcast_object_list(values, src=0)
    return values[0]


@torch.no_grad()
def average_(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its mean over all processes."""
    if not dist.is_initialized():
        return
    tensors = list(tensors)

    # One all-reduce of a flat tensor: many small ones would each pay the latency of the network.
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    mean = total_(flat) / dist.get_world_size()
    sizes = [tensor.numel() for tensor in tensors]
    parts = mean.split(sizes)
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


@torch.no_grad()
def agree_(tensors: Iterable[Tensor]) -> None:
    """Copy the first process' tensors into every other process."""
    if not dist.is_initialized():
        return
    with _lost_workers():
        for tensor in tensors:
            dist.broadcast(tensor, src=0)

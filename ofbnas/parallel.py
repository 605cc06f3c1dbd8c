"""Several processes that train one model: under torchrun each takes its shard of every batch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor


class Shard(NamedTuple):
    """One process of several: its number, from 0, and how many there are."""

    rank: int = 0
    world: int = 1

    def of(self, count: int) -> slice:
        """Its part of `count` things that are dealt out in turn."""
        return slice(self.rank, count, self.world)


def shard() -> Shard:
    """This process among those it trains with."""
    return Shard(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Shard()


@contextmanager
def joined() -> Iterator[torch.device]:
    """Join the processes that torchrun started, if it did; gives the device of this one."""
    cuda = torch.cuda.is_available()
    if "LOCAL_RANK" not in os.environ:
        yield torch.device("cuda" if cuda else "cpu")
        return
    device = torch.device(f"cuda:{os.environ['LOCAL_RANK']}" if cuda else "cpu")
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def meeting_place(host: str, port: int, world: int, *, first: bool = False) -> Any:
    """Where processes find each other: torch's TCP store.

    Args:
        host: Address of the first process' machine.
        port: Of the store; the first process may give 0 for a free one.
        world: Processes there will be.
        first: Whether this is the first process, which holds the store.
    """
    known: Any = dist
    return known.TCPStore(host, port, world, is_master=first, wait_for_workers=False)


@contextmanager
def grouped(store: Any, rank: int, world: int, device: torch.device) -> Iterator[None]:
    """Join processes that have one meeting place.

    Args:
        store: The meeting place.
        rank: Of this one.
        world: How many there are.
        device: Of this one.
    """
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", store=store, rank=rank, world_size=world)
    try:
        yield
    finally:
        dist.destroy_process_group()


def total_(tensor: Tensor) -> Tensor:
    """The sum over all processes, in place."""
    if dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def from_first(value: bytes | None) -> bytes | None:
    """The first process' value, in every process."""
    if not dist.is_initialized():
        return value
    held = [value]
    dist.broadcast_object_list(held, src=0)
    return held[0]


@torch.no_grad()
def average_(tensors: Iterable[Tensor]) -> None:
    """Put the mean over all processes into each tensor; they travel together."""
    if not dist.is_initialized():
        return
    tensors = list(tensors)
    mean = total_(torch.cat([tensor.flatten() for tensor in tensors])) / dist.get_world_size()
    for tensor, part in zip(tensors, mean.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


@torch.no_grad()
def agree_(tensors: Iterable[Tensor]) -> None:
    """Give every process the first one's tensors."""
    if dist.is_initialized():
        for tensor in tensors:
            dist.broadcast(tensor, src=0)

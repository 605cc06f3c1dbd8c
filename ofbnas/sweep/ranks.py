"""Several workers for one trial: its own process is the first, the others are Ray actors of its placement group."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import torch
import torch.distributed as dist

from ofbnas import parallel
from ofbnas.sweep.ray_quietly import ray

Run = Callable[[int, Any], None]  # a worker's number, and what all are given
NODE_GRACE = 60.0  # seconds that Ray has to notice that a node is gone
GRACE = 20.0  # seconds that the first worker has to notice by itself that it has lost another


class WorkerLostError(RuntimeError):
    """A worker of a trial died; the trial has to be started again."""


def device_of(gpus: float) -> torch.device:
    """Where a worker computes: on the GPU that Ray shows it, if it has one."""
    return torch.device("cuda" if gpus else "cpu")


@contextmanager
def others(run: Run, parent: Any, workers: int, cpus: float, gpus: float) -> Iterator[None]:
    """Let the other workers of a trial run while the block, which is the first worker's, does.

    Args:
        run: What each of them runs.
        parent: What `run` is given beside the worker's number, by way of Ray's object store.
        workers: How many there are with the first.
        cpus: CPUs of each.
        gpus: GPUs of each.

    Raises:
        WorkerLostError: One died. Where the block does not end by that, the process does.
    """
    if workers == 1:
        yield
        return
    host = _use_rays_network()
    store = parallel.meeting_place(host, 0, workers, first=True)
    group, shared = ray.util.get_current_placement_group(), ray.put(parent)
    actors = [
        ray.remote(_Rank)
        .options(
            num_cpus=cpus,
            num_gpus=gpus,
            scheduling_strategy=ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(group, rank),
        )
        .remote(rank, workers, gpus)
        for rank in range(1, workers)
    ]
    runs = [actor.run.remote(run, host, store.port, shared) for actor in actors]
    over = threading.Event()
    threading.Thread(target=_watch, args=(runs, over), daemon=True).start()
    try:
        with parallel.grouped(store, 0, workers, device_of(gpus)):
            yield
        ray.get(runs)
    except Exception as error:
        raise _cause(runs, error) from error
    finally:
        over.set()
        for actor in actors:
            ray.kill(actor)


class _Rank:
    """A worker that is not the first."""

    def __init__(self, rank: int, workers: int, gpus: float) -> None:
        self.rank, self.workers, self.device = rank, workers, device_of(gpus)

    def run(self, run: Run, host: str, port: int, parent: Any) -> None:
        """Run together with the others."""
        _use_rays_network()
        store = parallel.meeting_place(host, port, self.workers)
        with parallel.grouped(store, self.rank, self.workers, self.device):
            run(self.rank, parent)


def _use_rays_network() -> str:
    """Let gloo use the network that Ray uses, whatever this machine's name stands for; gives this node's address."""
    host: str = ray.util.get_node_ip_address()
    for interface, addresses in psutil.net_if_addrs().items():
        if any(address.address == host for address in addresses):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    return host


def _cause(runs: list[Any], error: Exception) -> Exception:
    """What an error of the first worker comes from: it is often the first to hear of another's end."""
    # Torch has only RuntimeError for a connection that ended, which is what a worker sees of another that failed.
    of_connection = type(error) is RuntimeError or isinstance(error, dist.DistError)
    ended, open_ = ray.wait(runs, num_returns=len(runs), timeout=NODE_GRACE if of_connection else GRACE / 2)
    found = [failed for run in ended if (failed := _failure(run)) is not None]
    for other in found:
        if not isinstance(other, ray.exceptions.RayTaskError):
            return WorkerLostError(f"a worker of the trial was lost ({type(other).__name__})")
    causes = [other.cause for other in found if isinstance(other.cause, Exception)]
    if of_connection and open_:
        return WorkerLostError(f"a worker of the trial cannot be reached ({error})")
    told = [cause for cause in causes if type(cause) is not RuntimeError and not isinstance(cause, dist.DistError)]
    return told[0] if told else error


def _failure(run: Any) -> Any:
    """The error a worker ended with, or None."""
    try:
        ray.get(run)
    except ray.exceptions.RayError as error:
        return error
    return None


def _watch(runs: list[Any], over: threading.Event) -> None:
    """End this process if it goes on waiting for a worker that is no more, as it may within a collective on GPUs."""
    left = list(runs)
    while left and not over.is_set():
        ended, left = ray.wait(left, timeout=1.0)
        if any(_failure(run) is not None for run in ended) and not over.wait(GRACE):
            os._exit(1)

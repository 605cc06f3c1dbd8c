"""Several workers for one trial: its process is the first, the others are Ray actors."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import torch

from ofbnas import parallel
from ofbnas.errors import WorkerLostError
from ofbnas.study.cluster.ray_import import ray

Run = Callable[[int, Any], None]  # takes the worker's rank, and the value that all workers get
NODE_GRACE = 60.0  # seconds that Ray has to notice that a node is gone
GRACE = 20.0  # seconds that the first worker has to notice by itself that another was lost


def device_of(gpus: float) -> torch.device:
    """The device of a worker: the GPU that Ray makes visible to it, if it has one."""
    return torch.device("cuda" if gpus else "cpu")


@contextmanager
def others(
    run: Run,
    parent: Any,
    workers: int,
    cpus: float,
    gpus: float,
) -> Iterator[None]:
    """Run the other workers of a trial while the block, which is the first worker, runs.

    Args:
        run: What each of them runs.
        parent: The second argument of `run`, sent through Ray's object store.
        workers: Their number, including the first.
        cpus: CPUs of each.
        gpus: GPUs of each.

    Raises:
        WorkerLostError: A worker died. If the block does not end because of that, this process is
            ended instead.
    """
    if workers == 1:
        yield
        return

    host = _use_rays_network()
    store = parallel.rendezvous(host, 0, workers, first=True)
    shared_parent = ray.put(parent)
    actors = _start_actors(workers, cpus, gpus)
    runs = []
    for actor in actors:
        runs.append(actor.run.remote(run, host, store.port, shared_parent))

    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(runs, over), daemon=True)
    watcher.start()
    try:
        with parallel.process_group(store, 0, workers, device_of(gpus)):
            yield
        ray.get(runs)
    except Exception as error:
        raise _cause(runs, error) from error
    finally:
        over.set()
        for actor in actors:
            ray.kill(actor)


def _start_actors(workers: int, cpus: float, gpus: float) -> list[Any]:
    """Start an actor in each bundle of the trial's placement group but the first worker's."""
    group = ray.util.get_current_placement_group()
    actors = []
    for rank in range(1, workers):
        in_bundle = ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(group, rank)
        actor_class = ray.remote(_Rank).options(
            num_cpus=cpus,
            num_gpus=gpus,
            scheduling_strategy=in_bundle,
        )
        actors.append(actor_class.remote(rank, workers, gpus))
    return actors


class _Rank:
    """A worker that is not the first."""

    def __init__(self, rank: int, workers: int, gpus: float) -> None:
        self.rank = rank
        self.workers = workers
        self.device = device_of(gpus)

    def run(self, run: Run, host: str, port: int, parent: Any) -> None:
        """Join the process group, and run together with the others."""
        _use_rays_network()
        store = parallel.rendezvous(host, port, self.workers)
        with parallel.process_group(store, self.rank, self.workers, self.device):
            run(self.rank, parent)


def _use_rays_network() -> str:
    """Let gloo use the network interface that Ray uses, and return this node's address there.

    By default gloo takes the address that the host name resolves to, which other nodes may not
    reach.
    """
    host: str = ray.util.get_node_ip_address()
    for interface, addresses in psutil.net_if_addrs().items():
        if any(address.address == host for address in addresses):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    return host


def _cause(runs: list[Any], error: Exception) -> Exception:
    """Find what caused an error of the first worker, which often sees only that another died.

    Args:
        runs: Ray's references to the runs of the other workers.
        error: What the first worker raised.
    """
    # A worker sees the failure of another as a lost connection.
    lost_connection = isinstance(error, WorkerLostError)
    patience = NODE_GRACE if lost_connection else GRACE / 2
    ended, running = ray.wait(runs, num_returns=len(runs), timeout=patience)
    failures = []
    for run in ended:
        failure = _failure(run)
        if failure is not None:
            failures.append(failure)

    for failure in failures:
        # A worker's own code raises a RayTaskError; any other error means that its process died.
        if not isinstance(failure, ray.exceptions.RayTaskError):
            return WorkerLostError(f"a worker of the trial was lost ({type(failure).__name__})")
    if lost_connection and running:
        return WorkerLostError(f"a worker of the trial cannot be reached ({error})")

    for failure in failures:
        cause = failure.cause
        # Workers that only lost the connection do not know the reason either.
        if isinstance(cause, Exception) and not isinstance(cause, WorkerLostError):
            return cause
    return error


def _failure(run: Any) -> Any:
    """The error that a worker ended with, or None."""
    try:
        ray.get(run)
    except ray.exceptions.RayError as error:
        return error
    return None


def _watch(runs: list[Any], over: threading.Event) -> None:
    """End this process if it keeps waiting for a dead worker, as a collective on GPUs may."""
    running = list(runs)
    while running and not over.is_set():
        ended, running = ray.wait(running, timeout=1.0)
        has_failed = any(_failure(run) is not None for run in ended)
        if has_failed and not over.wait(GRACE):
            os._exit(1)

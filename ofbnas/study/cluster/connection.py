"""The connection to Ray: to a cluster that runs, or to an instance that this process starts."""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ofbnas.errors import InputError, one_line
from ofbnas.study.cluster.ray_import import OWN_TOKEN, ray
from ofbnas.study.cluster.ray_private import TOO_SLOW, end_failed_start

CONNECT_SECONDS = 5.0
STARTS = 3  # attempts; Ray gives up after 30 s, which a busy machine may need
TOKEN_HELP = (
    "set RAY_AUTH_MODE=token and one RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) on all nodes and here"
)


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Stay connected to Ray, without its output, while the block runs.

    Args:
        address: "auto" for a cluster on this machine, HOST:PORT for any other; None starts Ray for
            this process alone, unless that has been done already.

    Raises:
        InputError: There is no cluster at the address, or it rejects this process.
    """
    if address is not None:
        _join(address)
    elif not ray.is_initialized():
        start()
    try:
        yield
    finally:
        ray.shutdown()


def start(preload: Sequence[str] = ()) -> None:
    """Start Ray for this process alone.

    Args:
        preload: Modules that Ray's processes import when they start, one process for each CPU.

    Raises:
        TimeoutError: The machine is too busy.
    """
    cpus = os.cpu_count() or 1
    settings: dict[str, Any] = {}
    if preload:
        settings["preload_python_modules"] = list(preload)
        # By default Ray ends those that wait while their CPUs are reserved, as Tune does for a trial that is to run.
        settings["num_workers_soft_limit"] = cpus
    for _ in range(STARTS):
        begun = time.time()
        try:
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                _system_config=settings,
                **_quiet(),
            )
        except Exception as error:  # of no type of its own
            if TOO_SLOW not in str(error):
                raise
            end_failed_start(begun)
        else:
            return
    raise TimeoutError(
        f"Ray did not start within {STARTS} x 30 s on this machine: let other work on it end, and give "
        "the same command again"
    )


@contextmanager
def interrupts() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, which Tune answers by stopping its trials.

    Ray has a handler of its own for it, which this one has to replace after Ray has started.
    """

    def interrupt(number: int, frame: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _quiet() -> dict[str, Any]:
    """Arguments of `ray.init` that keep Ray silent; Tune is silenced as well."""
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    return {
        "log_to_driver": False,
        "logging_level": logging.CRITICAL,
        "configure_logging": True,
    }


def _join(address: str) -> None:
    """Connect to a cluster."""
    if address != "auto":
        _check_listens(address)
    if OWN_TOKEN:
        raise InputError(
            f"{address}: Ray was set up for an instance of this process alone; set the environment "
            "variable RAY_ADDRESS before ofbnas.study.cluster is imported"
        )

    given = f"--address {address}"
    try:
        with _without_stderr():
            ray.init(address=address, **_quiet())
    except ConnectionError as error:
        if address == "auto":
            raise InputError(
                f"{given}: no Ray runs on this machine; start it with `ray start --head`, "
                "or give HOST:PORT"
            ) from error
        raise InputError(
            f"{given}: what listens there is not a Ray cluster, or has another token: {TOKEN_HELP}"
        ) from error
    except ray.exceptions.AuthenticationError as error:
        raise InputError(f"{given}: the cluster has another token: {TOKEN_HELP}") from error
    except (RuntimeError, ValueError) as error:  # such as another version of Ray or Python
        raise InputError(f"{given}: {one_line(error)}") from error


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Discard standard error of this process, to which Ray's C++ core logs each failed attempt.

    The file descriptor is replaced, since the core does not write through sys.stderr.
    """
    saved = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


def _check_listens(address: str) -> None:
    """Fail within seconds if nothing listens; Ray itself retries for much longer.

    Raises:
        InputError: Nothing does, or the address is not one.
    """
    parts = address.rpartition(":")
    host = parts[0]
    port = parts[2]
    if not host or not port.isdecimal() or len(port) > 5:
        raise InputError(f"--address {address}: expected auto or HOST:PORT, such as 10.0.0.1:6379")
    try:
        # Brackets enclose the host of an IPv6 address.
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"--address {address}: nothing answers there ({error}); expected the address that "
            "`ray start --head` printed on the head node"
        ) from None

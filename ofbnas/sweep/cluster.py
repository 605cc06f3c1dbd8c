"""Ray's cluster: a connection to it, what its nodes have, and whether a study can run there."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ofbnas.config import StudyConfig
from ofbnas.errors import InputError, TransferError
from ofbnas.ledger.storage import check_storage
from ofbnas.study_file import PATHS, dump_study
from ofbnas.sweep.ray_quietly import OWN_TOKEN, ray, tune
from ofbnas.sweep.shared import SharedStorage
from ofbnas.trial import versions

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 120.0  # a node's first process has to import torch
NEEDED = tuple(name for name in PATHS if name != "model.checkpoint")  # the driver hands the parent on
ALIKE = ("ofbnas", "torch", "timm")  # Ray itself refuses another Ray or Python
TOKEN_HELP = "set RAY_AUTH_MODE=token and one RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) on all nodes and here"


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Ray, quiet: a cluster's, or one of this process' own.

    Args:
        address: "auto" for a cluster of this machine, or HOST:PORT; None for an own one.

    Raises:
        InputError: There is none at the address, or it does not let this process in.
    """
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL, "configure_logging": True}
    if address is None:
        ray.init(address="local", num_cpus=os.cpu_count(), include_dashboard=False, **quiet)
    else:
        _join(address, quiet)
    try:
        yield
    finally:
        ray.shutdown()


def _join(address: str, quiet: Mapping[str, Any]) -> None:
    if OWN_TOKEN:
        raise InputError(
            f"{address}: Ray was set up for a cluster of this process' own; set the environment variable "
            "RAY_ADDRESS before ofbnas.sweep is imported"
        )
    if address != "auto":
        _check_listens(address)
    try:
        with _hushed():
            ray.init(address=address, **quiet)
    except ConnectionError as error:
        if address == "auto":
            raise InputError(
                "--address auto: no Ray runs on this machine; start it with `ray start --head`, or give HOST:PORT"
            ) from error
        raise InputError(
            f"--address {address}: what listens there is no Ray cluster, or has another token: {TOKEN_HELP}"
        ) from error
    except ray.exceptions.AuthenticationError as error:
        raise InputError(f"--address {address}: the cluster has another token: {TOKEN_HELP}") from error
    except (RuntimeError, ValueError) as error:  # such as another version of Ray or Python
        raise InputError(f"--address {address}: {' '.join(str(error).split())[:300]}") from error


@contextmanager
def _hushed() -> Iterator[None]:
    """Keep what Ray's core says of each failed attempt from standard error."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _check_listens(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise InputError(f"--address {address}: expected auto or HOST:PORT, such as 10.0.0.1:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"--address {address}: nothing answers there ({error}); expected the address that "
            "`ray start --head` printed on the head node"
        ) from None


@dataclass
class Node:
    """A node of the cluster.

    Attributes:
        id: Ray's.
        host: Its address.
        cpus: That Ray may give out, as are GPUs.
        versions: Of what results depend on; empty where the node was not asked or did not answer.
        disk_free_gb: Where its temporary files go.
        problems: Why the study cannot run on it.
    """

    id: str
    host: str
    cpus: float
    gpus: float
    versions: dict[str, str] = field(default_factory=dict)
    disk_free_gb: float | None = None
    problems: list[str] = field(default_factory=list)

    def workers(self, config: StudyConfig) -> int:
        """Workers of trials that it has room for."""
        resources = config.resources
        fits = self.cpus * resources.workers_per_trial / resources.cpus_per_trial
        if resources.gpus_per_trial:
            fits = min(fits, self.gpus * resources.workers_per_trial / resources.gpus_per_trial)
        return int(fits + 1e-9)


def nodes() -> list[Node]:
    """The nodes that are alive, by address."""
    found = [
        Node(node["NodeID"], node["NodeManagerAddress"], _of(node, "CPU"), _of(node, "GPU"))
        for node in ray.nodes()
        if node["Alive"]
    ]
    return sorted(found, key=lambda node: (node.host, node.id))


def placement(config: StudyConfig) -> tune.PlacementGroupFactory:
    """What Tune reserves for a trial: a bundle for each worker."""
    resources, workers = config.resources, config.resources.workers_per_trial
    amounts = zip(("CPU", "GPU"), resources.per_worker(), strict=True)
    bundle = {name: amount for name, amount in amounts if amount}
    return tune.PlacementGroupFactory([bundle] * workers, strategy="PACK" if resources.span_nodes else "STRICT_PACK")


def trials_at_a_time(config: StudyConfig, cluster: list[Node]) -> int:
    """Trials that fit on the nodes together.

    Raises:
        InputError: None does.
    """
    resources = config.resources
    room = [node.workers(config) for node in cluster]
    if resources.span_nodes:
        fits = sum(room) // resources.workers_per_trial
    else:
        fits = sum(workers // resources.workers_per_trial for workers in room)
    if fits:
        return fits
    raise InputError(_why_none(config, cluster))


def _why_none(config: StudyConfig, cluster: list[Node]) -> str:
    """Why no trial fits."""
    resources = config.resources
    wanted = {"GPUs": (resources.gpus_per_trial, "gpus"), "CPUs": (resources.cpus_per_trial, "cpus")}
    lower = "lower resources.cpus_per_trial or gpus_per_trial"
    for what, (needs, name) in wanted.items():
        have = [float(getattr(node, name)) for node in cluster]
        if resources.span_nodes and needs > sum(have):
            return f"a trial needs {needs:g} {what}; all nodes together have {sum(have):g}: {lower}"
        if not resources.span_nodes and needs > max(have):
            spans = ", or let it span nodes with resources.span_nodes" if resources.workers_per_trial > 1 else ""
            return f"a trial needs {needs:g} {what} on one node; the largest node has {max(have):g}: {lower}{spans}"
    both = f"{resources.gpus_per_trial:g} GPUs and {resources.cpus_per_trial:g} CPUs"
    return f"a trial needs {both}, and no nodes have both for all of its workers: {lower}"


def diagnose(config: StudyConfig | None, folder: Path | None, address: str | None) -> dict[str, Any]:
    """What the nodes of a cluster have, and what would keep a study from running there, as plain values.

    Args:
        config: The study, if there is one.
        folder: Its folder.
        address: Of the cluster.

    Returns:
        nodes: A dictionary for each node: host, cpus, gpus, versions, disk_free_gb.
        problems: Lines for people; empty where nothing is wrong.
        trials_at_a_time: How many of the study's trials fit, None without one.
    """
    with connected(address):
        cluster, fits, problems = nodes(), None, []
        examine(cluster, config, folder, None if config is None else config.resources.storage_path)
        if config is not None:
            try:
                fits = trials_at_a_time(config, cluster)
                check_storage(config, len(cluster))
            except InputError as error:
                problems.append(str(error))
    shown = ("host", "cpus", "gpus", "versions", "disk_free_gb")
    return {
        "nodes": [{name: getattr(node, name) for name in shown} for node in cluster],
        "problems": problems + _told(cluster),
        "trials_at_a_time": fits,
    }


def ready(config: StudyConfig, folder: Path, storage: str | None, *, joined: bool) -> int:
    """How many trials fit on the cluster at a time, once it is known that the study can run there.

    Args:
        config: The study.
        folder: Its folder, which exists.
        storage: Address of its shared storage.
        joined: Whether the cluster is not this process' own, so that its nodes are asked.

    Raises:
        InputError: It cannot; all problems are told.
    """
    cluster = nodes()
    check_storage(config, len(cluster))
    fits = trials_at_a_time(config, cluster)  # nodes need not be asked for anything where none does
    if joined:
        examine(cluster, config, folder, storage)
        if problems := _told(cluster):
            raise InputError("the cluster is not ready: " + "; ".join(problems))
        fits = trials_at_a_time(config, cluster)  # without those that turned out to be dead
    if storage is not None:  # which this process needs as well
        SharedStorage(storage).check(f"probe-{uuid.uuid4().hex}")
    return fits


def examine(cluster: list[Node], config: StudyConfig | None, folder: Path | None, storage: str | None) -> None:
    """Ask each node what it has, and write down in it why the study cannot run there.

    Args:
        cluster: The nodes; those without room for a worker are not asked, and those that turn out to be dead go.
        config: The study, if there is one.
        folder: The study's; each node has to see it where there is no storage. Made for the time if need be.
        storage: Address of the study's shared storage.
    """
    mark = f"probe-{uuid.uuid4().hex}"
    seen = folder if storage is None else None
    with _marked(seen, mark):
        asked = {
            _ask(node, config, seen, storage, mark): node for node in cluster if config is None or node.workers(config)
        }
        answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_SECONDS) if asked else ([], [])
        for reply in silent:
            asked[reply].problems.append(f"did not answer within {ANSWER_SECONDS:g} s")
        for reply in answered:
            _note(asked[reply], reply, seen, mark)
    alive = {node.id for node in nodes()}  # Ray takes a while to notice that one is gone
    cluster[:] = [node for node in cluster if node.id in alive]


@contextmanager
def _marked(folder: Path | None, mark: str) -> Iterator[None]:
    """A file in the study's folder for the nodes to find, and none of theirs left behind."""
    if folder is None:
        yield
        return
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f".{mark}").touch()
    try:
        yield
    finally:
        for file in folder.glob(f".{mark}*"):
            file.unlink(missing_ok=True)
        if new:
            folder.rmdir()


def _ask(node: Node, config: StudyConfig | None, folder: Path | None, storage: str | None, mark: str) -> Any:
    where = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node.id, soft=False)
    probe = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=where)(_probe)
    place = None if folder is None else str(folder.resolve())
    return probe.remote(None if config is None else dump_study(config), place, storage, f"{mark}-{node.id[:12]}")


def _note(node: Node, reply: Any, folder: Path | None, mark: str) -> None:
    try:
        found = ray.get(reply)
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error
        line = " ".join(str(cause).split())[-200:]
        missing = isinstance(cause, ModuleNotFoundError) or "ModuleNotFoundError" in line
        node.problems.append(f"lacks a package ({line}): install the same on all nodes" if missing else line)
        return
    node.versions, node.disk_free_gb = found["versions"], found["disk_free_gb"]
    node.problems += found["problems"]
    here = versions()
    for name in ALIKE:
        if (there := node.versions.get(name)) != here.get(name):
            node.problems.append(f"has {name} {there}, this process {here.get(name)}: install the same on all nodes")
    if folder is not None and not (folder / f".{mark}-{node.id[:12]}").is_file() and not found["problems"]:
        node.problems.append(f"what it writes into {folder} is not seen here: share it, or give resources.storage_path")


def _probe(study: str | None, folder: str | None, storage: str | None, mark: str) -> dict[str, Any]:
    """What a node has; runs there."""
    problems = []
    if study is not None:
        tree = yaml.safe_load(study)
        for name in NEEDED:
            given: Any = tree
            for key in name.split("."):
                given = given.get(key) if isinstance(given, dict) else None
            if given is not None and not Path(given).exists():
                problems.append(f"{name} {given} is not there: put it at the same path on all nodes")
    if folder is not None:
        mine = Path(folder) / f".{mark}"
        if not mine.with_name(mine.name.rpartition("-")[0]).is_file():
            problems.append(f"does not see {folder}: share it at the same path, or give resources.storage_path")
        else:
            try:
                mine.touch()
            except OSError as error:
                problems.append(f"cannot write {folder} ({error.strerror})")
    if storage is not None:
        try:
            SharedStorage(storage).check(mark)
        except (InputError, TransferError) as error:
            problems.append(f"cannot use {error}")
    free = shutil.disk_usage(tempfile.gettempdir()).free / 1e9
    return {"versions": versions(), "disk_free_gb": round(free, 1), "problems": problems}


def _told(cluster: list[Node]) -> list[str]:
    return [f"{node.host}: {problem}" for node in cluster for problem in node.problems]


def _of(node: Mapping[str, Any], resource: str) -> float:
    return float(node["Resources"].get(resource, 0))

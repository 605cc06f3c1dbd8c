"""What the nodes of a Ray cluster lack for a study: versions, files, its folder, the storage."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ofbnas.config import StudyConfig
from ofbnas.config.study_file import PATHS, dump_study, parse_study
from ofbnas.errors import InputError, TransferError
from ofbnas.study.cluster.connection import connected
from ofbnas.study.cluster.placement import Node, nodes, trials_at_a_time
from ofbnas.study.cluster.ray_import import ray
from ofbnas.study.cluster.shared_storage import SharedStorage
from ofbnas.study.provenance import versions
from ofbnas.study.tuning.storage import check_storage

ANSWER_SECONDS = 300.0  # a node's first process has to import torch, which may lie on a shared disk
# Paths that have to exist on each node; the driver sends the parent's weights to the workers.
NEEDED = tuple(name for name in PATHS if name != "model.checkpoint")
# Ray itself rejects a node with another version of Ray or Python.
SAME_VERSION = ("ofbnas", "torch", "timm")


def diagnose(
    config: StudyConfig | None, folder: Path | None, address: str | None
) -> dict[str, Any]:
    """What the nodes of a cluster have, and what keeps a study from running there, as plain values.

    Args:
        config: The study, if there is one.
        folder: Its folder.
        address: The cluster's, as `connected` takes it.

    Returns:
        nodes: A dictionary for each node: host, cpus, gpus, versions, disk_free_gb.
        problems: Messages for people; empty where nothing is wrong.
        trials_at_a_time: How many of the study's trials fit at the same time, None without a study.

    Raises:
        InputError: There is no cluster at the address.
    """
    storage = None if config is None else config.resources.storage_path
    fits = None
    problems = []
    with connected(address):
        cluster = nodes()
        examine(cluster, config, folder, storage)
        if config is not None:
            try:
                fits = trials_at_a_time(config, cluster)
                check_storage(config, len(cluster))
            except InputError as error:
                problems.append(str(error))

    shown = ("host", "cpus", "gpus", "versions", "disk_free_gb")
    return {
        "nodes": [{name: getattr(node, name) for name in shown} for node in cluster],
        "problems": problems + _problems_of(cluster),
        "trials_at_a_time": fits,
    }


def ready(
    config: StudyConfig,
    folder: Path,
    storage: str | None,
    *,
    joined: bool,
) -> int:
    """Check that a study can run on the cluster, and return how many trials fit at the same time.

    Args:
        config: The study.
        folder: Its folder, which exists.
        storage: Address of its shared storage.
        joined: Whether the cluster was running before, so that its nodes have to be asked.

    Raises:
        InputError: The study cannot run there; the message lists all problems.
    """
    cluster = nodes()
    check_storage(config, len(cluster))
    # Before the nodes are asked, which takes longer: it raises if no trial fits.
    fits = trials_at_a_time(config, cluster)
    if joined:
        examine(cluster, config, folder, storage)
        problems = _problems_of(cluster)
        if problems:
            raise InputError("the cluster is not ready: " + "; ".join(problems))
        fits = trials_at_a_time(config, cluster)  # again, without the nodes found dead

    if storage is not None:  # the driver uses it as well
        SharedStorage(storage).check(_new_mark())
    return fits


def examine(
    cluster: list[Node],
    config: StudyConfig | None,
    folder: Path | None,
    storage: str | None,
) -> None:
    """Ask each node what it has, and record in its `Node` why the study cannot run there.

    Args:
        cluster: The nodes. Those that no worker fits on are not asked; dead ones are removed.
        config: The study, if there is one.
        folder: The study's folder, which each node has to see where there is no storage. One that
            does not exist is made for the duration of the check.
        storage: Address of the study's shared storage.
    """
    mark = _new_mark()
    if storage is not None:
        folder = None
    with _marked(folder, mark):
        nodes_by_reply = {}
        for node in cluster:
            if config is None or node.workers(config):
                reply = _ask(node, config, folder, storage, mark)
                nodes_by_reply[reply] = node
        if nodes_by_reply:  # ray.wait rejects an empty list
            replies = list(nodes_by_reply)
            answered, silent = ray.wait(
                replies,
                num_returns=len(replies),
                timeout=ANSWER_SECONDS,
            )
            for reply in silent:
                problem = f"did not answer within {ANSWER_SECONDS:g} s"
                nodes_by_reply[reply].problems.append(problem)
            for reply in answered:
                _record(nodes_by_reply[reply], reply, folder, mark)

    # Ray lists a dead node as alive for a while; by now it knows, since the probes took their time.
    alive = {node.id for node in nodes()}
    cluster[:] = [node for node in cluster if node.id in alive]


def _new_mark() -> str:
    """A name for a file that no other check uses."""
    return f"probe-{uuid.uuid4().hex}"


def _problems_of(cluster: list[Node]) -> list[str]:
    """The problems of all nodes, each with its node's address."""
    problems = []
    for node in cluster:
        problems += [f"{node.host}: {problem}" for problem in node.problems]
    return problems


@contextmanager
def _marked(folder: Path | None, mark: str) -> Iterator[None]:
    """Put a file into the study's folder for the nodes to find; remove it and theirs at the end."""
    if folder is None:
        yield
        return
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f".{mark}").touch()
    try:
        yield
    finally:
        for file in folder.glob(f".{mark}*"):
            file.unlink(missing_ok=True)
        if is_new:
            folder.rmdir()


def _mark_of(node: Node, mark: str) -> str:
    """The mark of the file that a node leaves; its last part names the node."""
    return f"{mark}-{node.id[:12]}"


def _ask(
    node: Node,
    config: StudyConfig | None,
    folder: Path | None,
    storage: str | None,
    mark: str,
) -> Any:
    """Start the probe on a node, and return Ray's reference to its reply."""
    on_node = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node.id, soft=False)
    as_task = ray.remote(
        num_cpus=0,
        max_retries=0,
        scheduling_strategy=on_node,
    )
    probe = as_task(_probe)
    study = None if config is None else dump_study(config)
    path = None if folder is None else str(folder.resolve())
    return probe.remote(study, path, storage, _mark_of(node, mark))


def _record(node: Node, reply: Any, folder: Path | None, mark: str) -> None:
    """Record in a node what its probe replied."""
    try:
        result = ray.get(reply)
    except ray.exceptions.RayError as error:
        node.problems.append(_why_probe_failed(error))
        return

    node.versions = result["versions"]
    node.disk_free_gb = result["disk_free_gb"]
    node.problems += result["problems"]

    own = versions()
    for name in SAME_VERSION:
        version = node.versions.get(name)
        expected = own.get(name)
        if version != expected:
            node.problems.append(
                f"has {name} {version}, this process {expected}: install the same on all nodes"
            )

    if folder is None or result["problems"]:
        return
    # A node may have a folder of the same name on a disk of its own.
    own_mark = folder / f".{_mark_of(node, mark)}"
    if not own_mark.is_file():
        node.problems.append(
            f"what it writes into {folder} does not appear here: "
            "share it, or give resources.storage_path"
        )


def _why_probe_failed(error: Exception) -> str:
    """One line about a probe that raised, or whose process died."""
    cause = getattr(error, "cause", None) or error
    line = " ".join(str(cause).split())
    line = line[-200:]  # the end of Ray's message is the error itself
    # Ray may have the exception only as text, if the node could not even load the probe.
    if isinstance(cause, ModuleNotFoundError) or "ModuleNotFoundError" in line:
        return f"lacks a package ({line}): install the same on all nodes"
    return line


def _probe(
    study: str | None,
    folder: str | None,
    storage: str | None,
    mark: str,
) -> dict[str, Any]:
    """What a node has, and what is wrong with it; runs on that node."""
    problems = []
    if study is not None:
        problems += _missing_files(study)
    if folder is not None:
        problems += _folder_problems(Path(folder), mark)
    if storage is not None:
        try:
            SharedStorage(storage).check(mark)
        except (InputError, TransferError) as error:
            problems.append(f"cannot use {error}")

    free = shutil.disk_usage(tempfile.gettempdir()).free / 1e9
    return {
        "versions": versions(),
        "disk_free_gb": round(free, 1),
        "problems": problems,
    }


def _missing_files(study: str) -> list[str]:
    """Paths that the study names and this node does not have."""
    problems = []
    tree = parse_study(study).model_dump()
    for name in NEEDED:
        path: Any = tree
        for key in name.split("."):
            path = path.get(key) if isinstance(path, dict) else None
        if path is not None and not Path(path).exists():
            problems.append(f"{name} {path} is not there: put it at the same path on all nodes")
    return problems


def _folder_problems(folder: Path, mark: str) -> list[str]:
    """Look for the driver's file in the study's folder, and leave one of this node's there."""
    drivers_mark = mark.rpartition("-")[0]
    if not (folder / f".{drivers_mark}").is_file():
        return [f"does not see {folder}: share it at the same path, or give resources.storage_path"]
    try:
        (folder / f".{mark}").touch()
    except OSError as error:
        return [f"cannot write {folder} ({error.strerror})"]
    return []

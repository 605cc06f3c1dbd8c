"""The nodes of a Ray cluster, and how many trials of a study fit on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ofbnas.config import StudyConfig
from ofbnas.errors import InputError
from ofbnas.study.cluster.ray_import import ray
from ofbnas.study.cluster.tune_import import tune


@dataclass
class Node:
    """A node of the cluster.

    Attributes:
        id: Ray's identifier.
        host: Its address.
        cpus: CPUs that Ray may assign.
        gpus: GPUs that Ray may assign.
        versions: Versions of what results depend on; empty where the node was not asked or did not
            answer.
        disk_free_gb: Free space for its temporary files, 10^9 bytes; None like `versions`.
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
        """Number of the study's workers that fit on the node."""
        resources = config.resources
        num_workers = resources.workers_per_trial
        fits = self.cpus * num_workers / resources.cpus_per_trial
        if resources.gpus_per_trial:
            by_gpus = self.gpus * num_workers / resources.gpus_per_trial
            fits = min(fits, by_gpus)
        return int(fits + 1e-9)  # fractions of a GPU such as 0.1 do not divide exactly


def nodes() -> list[Node]:
    """The nodes that are alive, by address."""
    alive = []
    for node in ray.nodes():
        if not node["Alive"]:
            continue
        alive.append(
            Node(
                id=node["NodeID"],
                host=node["NodeManagerAddress"],
                cpus=_amount(node, "CPU"),
                gpus=_amount(node, "GPU"),
            )
        )
    return sorted(alive, key=lambda node: (node.host, node.id))


def _amount(node: Mapping[str, Any], resource: str) -> float:
    """How much of a resource a node has; Ray leaves out what it has none of."""
    return float(node["Resources"].get(resource, 0))


def placement(config: StudyConfig) -> tune.PlacementGroupFactory:
    """What Tune reserves for a trial: one bundle for each worker."""
    resources = config.resources
    cpus, gpus = resources.per_worker()
    amounts = {"CPU": cpus, "GPU": gpus}
    bundle = {name: amount for name, amount in amounts.items() if amount}

    # STRICT_PACK keeps all bundles on one node, PACK only tries to.
    strategy = "PACK" if resources.span_nodes else "STRICT_PACK"
    return tune.PlacementGroupFactory([bundle] * resources.workers_per_trial, strategy=strategy)


def trials_at_a_time(config: StudyConfig, cluster: list[Node]) -> int:
    """How many trials fit on the nodes at the same time.

    Raises:
        InputError: Not even one fits.
    """
    resources = config.resources
    workers = [node.workers(config) for node in cluster]
    if resources.span_nodes:
        fits = sum(workers) // resources.workers_per_trial
    else:
        # Workers left over on one node cannot join those of another.
        fits = sum(count // resources.workers_per_trial for count in workers)
    if fits:
        return fits
    raise InputError(_why_none_fits(config, cluster))


def _why_none_fits(config: StudyConfig, cluster: list[Node]) -> str:
    """Say which resource is too short for a trial."""
    resources = config.resources
    lower = "lower resources.cpus_per_trial or gpus_per_trial"
    amounts = [
        ("GPUs", resources.gpus_per_trial, [node.gpus for node in cluster]),
        ("CPUs", resources.cpus_per_trial, [node.cpus for node in cluster]),
    ]
    for name, needed, available in amounts:
        trial = f"a trial needs {needed:g} {name}"
        if resources.span_nodes:
            total = sum(available)
            if needed > total:
                return f"{trial}; all nodes together have {total:g}: {lower}"
            continue

        largest = max(available)
        if needed > largest:
            message = f"{trial} on one node; the largest node has {largest:g}: {lower}"
            if resources.workers_per_trial > 1:
                message += ", or let it span nodes with resources.span_nodes"
            return message

    both = f"{resources.gpus_per_trial:g} GPUs and {resources.cpus_per_trial:g} CPUs"
    return f"a trial needs {both}, and no nodes have both for all of its workers: {lower}"

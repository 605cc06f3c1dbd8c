"""Whether trials fit on nodes, and the message if none does."""

from __future__ import annotations

import pytest
from test_sampling import config

from ofbnas.config.study import ResourcesConfig
from ofbnas.errors import InputError
from ofbnas.study.cluster.placement import Node, placement, trials_at_a_time


def of(**resources):
    return config(sampler="random").model_copy(update={"resources": ResourcesConfig(**resources)})


def nodes(*sizes: tuple[float, float]) -> list[Node]:
    return [
        Node(str(number), f"10.0.0.{number}", *size) for number, size in enumerate(sizes, start=1)
    ]


FOUR = {"cpus_per_trial": 8, "gpus_per_trial": 4, "workers_per_trial": 4}


@pytest.mark.parametrize(
    ("resources", "sizes", "fits"),
    [
        ({}, [(2, 0), (0, 0), (1, 0)], 3),
        ({"cpus_per_trial": 0.5}, [(1, 0)], 2),
        ({"gpus_per_trial": 0.5}, [(8, 1)], 2),
        (FOUR, [(64, 8), (64, 8)], 4),
        (FOUR, [(64, 6), (64, 6)], 2),
        (FOUR | {"span_nodes": True}, [(64, 6), (64, 6)], 3),
        (FOUR | {"span_nodes": True}, [(64, 2), (64, 2)], 1),
    ],
)
def test_workers_of_a_trial_lie_on_one_node_unless_they_may_span(resources, sizes, fits):
    assert trials_at_a_time(of(**resources), nodes(*sizes)) == fits


@pytest.mark.parametrize(
    ("resources", "sizes", "says"),
    [
        (FOUR, [(64, 2), (8, 1)], "a trial needs 4 GPUs on one node; the largest node has 2:"),
        (FOUR, [(64, 2), (64, 2)], "or let it span nodes with resources.span_nodes"),
        (FOUR, [(4, 8)], "a trial needs 8 CPUs on one node; the largest node has 4:"),
        (FOUR, [(64, 0), (0, 8)], "a trial needs 4 GPUs and 8 CPUs, and no nodes have both"),
        (
            FOUR | {"span_nodes": True},
            [(64, 2), (64, 1)],
            "a trial needs 4 GPUs; all nodes together have 3:",
        ),
    ],
)
def test_what_is_missing_is_reported(resources, sizes, says):
    with pytest.raises(InputError, match=says.replace(".", r"\.")):
        trials_at_a_time(of(**resources), nodes(*sizes))


def test_each_worker_has_a_bundle_of_its_own():
    bundle = {"CPU": 2.0, "GPU": 1.0}
    assert (
        placement(of(**FOUR)).bundles == [bundle] * 4
        and placement(of(**FOUR)).strategy == "STRICT_PACK"
    )
    assert placement(of(**FOUR, span_nodes=True)).strategy == "PACK"
    assert placement(of()).bundles == [{"CPU": 1.0}]


def test_spanning_needs_workers_that_can():
    with pytest.raises(ValueError, match="span_nodes"):
        ResourcesConfig(span_nodes=True)

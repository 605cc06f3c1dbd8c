"""The network is timed as it will be used, in turn with its parent."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from conftest import DIGITS, make

from ofbnas.config import LatencyConfig
from ofbnas.config.study_file import load_study
from ofbnas.training.latency import MAX_TURNS, SETTLE, latency


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_more_layers_take_longer_and_the_measurement_is_described(compiled):
    small, large = make(depth=1), make(depth=12)
    found = latency(
        small, large, LatencyConfig(batch_size=4, batches=20, warmup=2, compile=compiled)
    )
    assert 0 < found["latency_ms"] <= found["latency_p90_ms"]
    assert found["parent_latency_ms"] > 2 * found["latency_ms"]
    told = f"1 thread, batch 4, float32{', compiled' if compiled else ''}"
    assert found["latency_device"].endswith(told), found["latency_device"]


@pytest.mark.parametrize("batches", [3, 25])
def test_the_two_take_turns_as_they_will_be_used_and_stay_as_they_are(batches):
    subnet, parent, seen = make(depth=1).train(), make(), []
    before = {name: tensor.clone() for name, tensor in subnet.state_dict().items()}

    def look(module, inputs):
        seen.append(
            (
                len(module.blocks),
                module.training,
                torch.is_grad_enabled(),
                inputs[0].shape,
                inputs[0].dtype,
            )
        )

    subnet.register_forward_pre_hook(look)
    parent.register_forward_pre_hook(look)
    state = torch.get_rng_state()
    latency(
        subnet, parent, LatencyConfig(batch_size=2, batches=batches, warmup=4, precision="bfloat16")
    )
    assert {what[1:] for what in seen} == {(False, False, (2, 1, 8, 8), torch.bfloat16)}
    depths = [depth for depth, *_ in seen]
    turns = min(MAX_TURNS, batches)
    assert depths.count(1) == depths.count(2) == 4 + batches + SETTLE * turns
    changes = sum(one != other for one, other in pairwise(depths[8:]))
    assert changes == 2 * turns - 1
    assert subnet.training and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in subnet.state_dict().items())


def test_latency_and_gpu_hours_are_objectives_and_constraints():
    study = load_study(
        DIGITS,
        [
            "latency={}",
            "objectives=[{metric: gpu_hours, direction: minimize}, {metric: latency_ms, direction: minimize}]",
            "sweep.constraints={latency_ms: {max: 2.0}}",
        ],
    )
    assert [objective.metric for objective in study.objectives] == ["gpu_hours", "latency_ms"]
    assert study.latency == LatencyConfig() and study.with_values({}).latency == study.latency

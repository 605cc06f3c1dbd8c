"""The examples run, with the real packages, and end with what they promise."""

from __future__ import annotations

from importlib import import_module

import pytest

from ofbnas.models.axes import axes
from ofbnas.models.cost import cost_of, sizes_of


@pytest.mark.parametrize(
    "name",
    [
        "own_loop",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("accelerate_loop", "lightning_loop", "hf_trainer")
        ),
    ],
)
def test_an_example_searches_under_its_package(name, capsys, recwarn):
    search = import_module(name).main(epochs=1, parent_epochs=1)
    assert "found: " in capsys.readouterr().out
    assert search.steps_done == search.num_steps and search.is_decided
    found, parent = search.subnet().model, search._stage.parent.model
    macs, full = (
        cost_of(model, axes(model), "macs").of(sizes_of(axes(model))) for model in (found, parent)
    )
    assert 0.9 * 0.5 * full < macs <= 0.5 * full
    (optimizer,) = search._attached
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert held == list(search.model.parameters())
    # It was trained on after the shrink, from state of its own.
    steps = {int(optimizer.state[parameter]["step"]) for parameter in held}
    assert len(steps) == 1 and 0 < steps.pop() < search.num_steps

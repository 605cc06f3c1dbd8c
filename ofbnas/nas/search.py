"""The single stage: learn weights, importance and sparsity together, decide, and shrink."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from ofbnas.config import SearchConfig
from ofbnas.models.architecture import Architecture
from ofbnas.models.axes import Axis
from ofbnas.models.axes import axes as axes_of
from ofbnas.models.cost import sizes_of
from ofbnas.models.subnet import Subnet
from ofbnas.nas.run import SearchRun
from ofbnas.nas.training_free import TrainingFreeSearch
from ofbnas.training.data import Data
from ofbnas.training.events import Callback
from ofbnas.training.loop import train
from ofbnas.training.teacher import Teacher


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        subnet: The architecture and its model, masks fused.
        macs: Multiply-accumulates per image.
        params: Parameters.
        note: Why the cost is further below the budget than asked for, or None.
        forced: How many axes were still open when all had to be decided, and were then decided
            together.
        history: One record per decision interval: losses, schedules, expected cost and the options
            left on each axis.
    """

    subnet: Subnet
    macs: int
    params: int
    note: str | None
    forced: int
    history: list[dict[str, Any]] = field(repr=False)


def search(
    model: nn.Module,
    data: Data,
    config: SearchConfig,
    *,
    name: str,
    kwargs: Mapping[str, Any],
    axes: Sequence[Axis] | None = None,
    seed: int = 0,
    teacher: Teacher | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: Path | None = None,
    rungs: Collection[int] = (),
) -> SearchResult:
    """Search a trained model for a smaller one inside the budget.

    With `config.epochs` 0, nothing is trained: see `ofbnas.nas.training_free`.

    The random states of torch, numpy and Python are set. Under torchrun all processes search
    together, and each returns the same.

    Args:
        model: The trained parent, on the data's device; it is not changed.
        data: The data set. Its training split is used, and at rungs the validation split.
        config: Configuration of the search.
        name: timm's name of the parent, for the record of what was found.
        kwargs: The arguments of timm.create_model that the parent was made with.
        axes: What is searched; by default all axes of the model, with OFB's space.
        seed: Random seed.
        teacher: The teacher, if distillation is configured; by default the model itself.
        callbacks: Called at each event.
        checkpoint: A file that is written after each epoch, and resumed from if it exists: the
            result is then the same as without the interruption, on a CPU bit for bit.
        rungs: Epochs, from 1, after which the search is measured for `Callback.on_rung`.

    Raises:
        InputError: The model cannot be searched, or the budget is out of reach.
        NotFiniteError: A loss became NaN or infinite.
    """
    searched = list(axes_of(model) if axes is None else axes)
    if config.epochs == 0:
        free = TrainingFreeSearch(model, data, config, searched, seed)
        network = free.run(callbacks, checkpoint)
        costs = free.budget.costs
        note = free.budget.note
        forced = 0
        history = free.history
    else:
        run = SearchRun(model, data, config, searched, seed, teacher)
        train(run, callbacks=callbacks, checkpoint=checkpoint, rungs=rungs)
        network = run.network.plain()
        costs = run.constraint.costs
        note = run.constraint.note
        forced = run.forced
        history = run.history
    sizes = sizes_of(network.axes)
    return SearchResult(
        Subnet(
            Architecture(name, dict(kwargs), {axis.name: axis.size for axis in network.axes}),
            network.model,
            {axis_name: kept.tolist() for axis_name, kept in network.units.items()},
        ),
        macs=costs["macs"].of(sizes),
        params=costs["params"].of(sizes),
        note=note,
        forced=forced,
        history=history,
    )

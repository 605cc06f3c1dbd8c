"""The single stage: learn weights, importance and sparsity together, decide on beats, shrink on the way."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ofbnas.axes import Axis
from ofbnas.axes import axes as axes_of
from ofbnas.config import SearchConfig
from ofbnas.cost import sizes_of
from ofbnas.data import Data
from ofbnas.searcher import OnRung, Searcher
from ofbnas.subnet import Architecture, Subnet
from ofbnas.teacher import Teacher
from ofbnas.training import OnEpoch, load_checkpoint


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        subnet: The architecture and its model, masks fused.
        macs: Multiply-accumulates per image.
        params: Parameters.
        note: Why the cost is further below the budget than asked for, or None.
        forced: Axes that were still open when all had to be decided, and then were, together.
        history: One record per beat: losses, schedules, expected cost and the options left on each axis.
    """

    subnet: Subnet
    macs: int
    params: int
    note: str | None
    forced: int
    history: list[dict[str, Any]]


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
    on_epoch: OnEpoch | None = None,
    checkpoint: Path | None = None,
    rungs: Collection[int] = (),
    on_rung: OnRung | None = None,
) -> Found:
    """Search a trained model for a smaller one inside the budget.

    The random states of torch, numpy and Python are set. Under torchrun all processes search together, and each
    returns the same.

    Args:
        model: The trained parent, on the data's device; it is not changed.
        data: Its training split is trained on; nothing else is looked at, but at rungs the validation split.
        config: Every number of the search.
        name: timm's name of the parent, to record what was found.
        kwargs: The arguments of timm.create_model it was made with.
        axes: What is searched; by default all axes of the model with OFB's space.
        seed: Of all randomness.
        teacher: What is distilled from, if the configuration says so; by default the model itself.
        on_epoch: Called after each epoch with its number, from 1, and its mean losses.
        checkpoint: A file that is written after each epoch, and gone on from if it is there: the result is then the
            same as without the interruption, on a CPU bit for bit.
        rungs: Epochs, from 1, at which the search is measured while it goes on.
        on_rung: Called at these with the epoch and "val_top1", "gmacs" and "params" as they are or are promised then.

    Raises:
        InputError: The model cannot be searched, or the budget is out of reach.
        NotFiniteError: A loss became NaN or infinite.
    """
    run = Searcher(model, data, config, list(axes_of(model) if axes is None else axes), seed, teacher)
    if (state := load_checkpoint(checkpoint, run.settings, run.device)) is not None:
        run.load_state(state)
    run.train(on_epoch, checkpoint, rungs, on_rung)
    learner = run.learner
    sizes = {axis.name: axis.size for axis in learner.supernet.axes}
    units = {axis_name: kept.tolist() for axis_name, kept in learner.units.items()}
    found = sizes_of(learner.supernet.axes)
    return Found(
        Subnet(Architecture(name, dict(kwargs), sizes), learner.result(), units),
        macs=run.costs["macs"].of(found),
        params=run.costs["params"].of(found),
        note=run.note,
        forced=run.forced,
        history=run.history,
    )

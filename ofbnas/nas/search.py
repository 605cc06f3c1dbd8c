"""The single stage: learn weights, importance and sparsity together, decide, and shrink."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from torch import nn

from ofbnas.config import BudgetConfig, SearchConfig
from ofbnas.models.axes import Axis
from ofbnas.models.axes import axes as axes_of
from ofbnas.models.cost import Cost, Metric
from ofbnas.models.identity import check_identity
from ofbnas.models.subnet import Subnet
from ofbnas.nas.run import StageRun
from ofbnas.nas.stage import Stage
from ofbnas.nas.training_free import TrainingFreeSearch
from ofbnas.training.criterion import TaskLoss
from ofbnas.training.data import Data
from ofbnas.training.events import Callback
from ofbnas.training.features import check_task
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
        epochs: One record per epoch: losses, learning rate, and accuracy and loss on the validation
            images; empty without training.
    """

    subnet: Subnet
    macs: int
    params: int
    note: str | None
    forced: int
    history: list[dict[str, Any]] = field(repr=False)
    epochs: list[dict[str, Any]] = field(repr=False)

    def _repr_html_(self) -> str:
        """The network and its costs, in a notebook."""
        found = f"{self.macs:,} multiply-accumulates per image"
        notes = "" if self.note is None else f"<p>{escape(self.note)}</p>"
        return f"{self.subnet._repr_html_()}<p>{found}</p>{notes}"


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
    loss: TaskLoss | None = None,
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
        data: The data set. It learns from the training split; the validation split is looked at
            after epochs and at rungs.
        config: Configuration of the search.
        name: timm's name of the parent, for the record of what was found.
        kwargs: The arguments of timm.create_model that the parent was made with.
        axes: What is searched; by default all axes of the model, with OFB's space.
        seed: Random seed.
        teacher: The teacher, if distillation is configured; by default the model itself.
        loss: The loss of outputs, [images, classes], and labels, [] and differentiable; by default
            `config.loss`. Labels may then be anything that it takes.
        callbacks: Called at each event.
        checkpoint: A file that is written after each epoch, and resumed from if it exists: the
            result is then the same as without the interruption, on a CPU bit for bit.
        rungs: Epochs, from 1, after which the search is measured for `Callback.on_rung`.

    Raises:
        InputError: The model cannot be searched or, without a classifier, trained; it is not the
            one of `name` and `kwargs`; or the budget is out of reach.
        NotFiniteError: A loss became NaN or infinite.
    """
    searched = list(axes_of(model) if axes is None else axes)
    if config.epochs == 0:
        found = compress(
            model,
            data,
            config,
            name=name,
            kwargs=kwargs,
            axes=searched,
            seed=seed,
            callbacks=callbacks,
            checkpoint=checkpoint,
        )
        ((_, result),) = found
        return result
    check_identity(model, name, kwargs)
    check_task(model, config.distill, "search")
    stage = Stage(model, data, config, searched, seed, teacher, loss)
    run = StageRun(stage)
    train(run, callbacks=callbacks, checkpoint=checkpoint, rungs=rungs)
    costs, note = stage.constraint.costs, stage.constraint.note
    subnet = stage.network.plain().subnet(name, kwargs)
    return _result(subnet, costs, note, stage.forced, run.history)


def compress(
    model: nn.Module,
    data: Data,
    config: SearchConfig,
    more: Sequence[BudgetConfig] = (),
    *,
    name: str,
    kwargs: Mapping[str, Any],
    axes: Sequence[Axis],
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
    checkpoint: Path | None = None,
) -> Iterator[tuple[int, SearchResult]]:
    """Compress a trained model to one budget or several, without training.

    A lower budget goes on from the network of the next higher one.

    Args:
        model: As for `search`, and so are the arguments that are not named here.
        data: Images of its training split are looked at; labels are not.
        config: Configuration of the search; its budget is the first one.
        more: Further budgets of the same metric, in any order.
        name: timm's name of the parent.
        kwargs: The arguments of timm.create_model that the parent was made with.
        axes: What is searched.
        seed: Random seed.
        callbacks: Called at each event; a step is an epoch.
        checkpoint: A file that is written after each step, and resumed from if it exists.

    Returns:
        An iterator over budgets, the highest first: a budget's number, 0 for that of `config`, and
        what was found, as soon as it is. A budget that the checkpoint is already below is left out.

    Raises:
        InputError: The model cannot be searched, is not the one of `name` and `kwargs`, or a budget
            is out of reach.
    """
    check_identity(model, name, kwargs)
    run = TrainingFreeSearch(model, data, config, axes, seed, more)

    def results() -> Iterator[tuple[int, SearchResult]]:
        for number, network in run.run(callbacks, checkpoint):
            budget = run.budgets[number]
            subnet = network.subnet(name, kwargs)
            yield number, _result(subnet, budget.costs, budget.note, 0, run.history)

    return results()


def _result(
    subnet: Subnet,
    costs: Mapping[Metric, Cost],
    note: str | None,
    forced: int,
    history: Sequence[dict[str, Any]],
) -> SearchResult:
    """What a search found, with its costs."""
    sizes = list(subnet.architecture.sizes.values())
    return SearchResult(
        subnet,
        macs=costs["macs"].of(sizes),
        params=costs["params"].of(sizes),
        note=note,
        forced=forced,
        history=[record for record in history if record["kind"] == "decision"],
        epochs=[record for record in history if record["kind"] == "epoch"],
    )

"""The rows of benchmarks/quality.py: searches, rules with sizes and units, and Torch-Pruning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import controls
from torch import Tensor, nn

from ofbnas.config import StudyConfig
from ofbnas.models.axes import Size
from ofbnas.nas.budget import Budget
from ofbnas.nas.compensation import Cut, compensate_
from ofbnas.nas.images import first_images
from ofbnas.nas.plain import Network
from ofbnas.nas.proportional import proportional
from ofbnas.nas.run import StageRun
from ofbnas.nas.search import search
from ofbnas.study.parent import Parent, meta_parent
from ofbnas.training.data import Data
from ofbnas.training.loop import train


class Case(NamedTuple):
    """What a row starts from.

    Attributes:
        settings: Gives the study's settings with more of them, as for --set.
        parent: The trained parent.
        data: The images.
        budget: What a network may cost.
        seed: Of everything random.
        found: Gives the sizes that another row has found in the same case.
    """

    settings: Callable[..., StudyConfig]
    parent: Parent
    data: Data
    budget: Budget
    seed: int
    found: Callable[[str], list[Size]]


class Made(NamedTuple):
    """A network, and whether all its training is done."""

    model: nn.Module
    is_trained: bool


Row = Callable[[Case], Made]
Rule = Callable[[Case, dict[str, Tensor]], list[Size]]


def searched(*settings: str) -> Row:
    """A search that trains, with settings as for --set."""
    return lambda case: Made(_search(case, settings), is_trained=True)


def in_steps(*settings: str, untrained: bool = False) -> Row:
    """The search without training; its network is then trained, unless `untrained`."""
    without = ("search.epochs=0", *settings)
    return lambda case: Made(_search(case, without), is_trained=untrained)


def ruled(rule: Rule, *, compensated: bool = False) -> Row:
    """Sizes by a rule, which may look at the saliency; the most salient units are kept."""

    def make(case: Case) -> Made:
        whole = Network.whole(case.parent.model, case.parent.axes)
        saliency = controls.saliency_of(whole, case.data, case.settings().search, case.seed)
        network = controls.cut_to(whole, rule(case, saliency), saliency)
        if compensated:
            config = case.settings().search.compensation
            images = first_images(case.data, config.images, case.seed)
            compensate_(Cut.between(whole, network), lambda: images, config.ridge)
        return Made(network.model, is_trained=False)

    return make


def torch_pruned(scope: str, *, hessian: bool = False) -> Row:
    """Torch-Pruning's ranking in a scope."""
    ranking = controls.Ranking(scope, hessian)

    def make(case: Case) -> Made:
        pruned = controls.torch_pruned(
            case.parent.model, case.data, case.settings().search, case.budget, ranking, case.seed
        )
        return Made(pruned, is_trained=False)

    return make


def without_task_gradient(case: Case) -> Made:
    """The default search, but its options' logits learn from the budget alone, not from images."""
    config = case.settings().search
    stage = controls.NoTaskGradient(
        case.parent.model, case.data, config, case.parent.axes, case.seed
    )
    train(StageRun(stage))
    return Made(stage.network.plain().model, is_trained=True)


def uniform(case: Case, saliency: dict[str, Tensor]) -> list[Size]:
    """All axes at the same share."""
    return proportional(case.parent.axes, case.budget, [1.0] * len(case.parent.axes))


def live_then_uniform(case: Case, saliency: dict[str, Tensor]) -> list[Size]:
    """All axes at the same share of their units that are not idle."""
    return controls.live_then_uniform(case.parent.axes, case.budget, saliency)


def random(case: Case, saliency: dict[str, Tensor]) -> list[Size]:
    """Random sizes."""
    return controls.random_sizes(case.parent.axes, case.budget, case.seed)


def knapsack(case: Case, saliency: dict[str, Tensor]) -> list[Size]:
    """Those with the highest sum of saliencies."""
    return controls.knapsack(case.parent.axes, case.budget, saliency)


def sizes_of_row(row: str) -> Rule:
    """The sizes that another row has found."""
    return lambda case, saliency: case.found(row)


def alike(row: str) -> Rule:
    """All blocks alike, at the mean widths that another row has found."""
    return lambda case, saliency: controls.alike(case.parent.axes, case.budget, case.found(row))


# The space of benchmarks/parents/vit.yaml, from which attentions and MLPs may also go.
BRANCHES_MAY_GO = (
    "search_space.heads=[0, 1, 2, 3, 4]",
    "search_space.mlp={low: 0.0, high: 1.0, step: 0.0833333333}",
)

# Rows that start from the sizes of others cost what these cost, and their own training on top.
ROWS: dict[str, Row] = {
    "default": searched(),
    "branches may go": searched(*BRANCHES_MAY_GO),
    "not refined": searched("search.refine.candidates=0"),
    "searched weights": searched("search.decided_weights=searched"),
    "a quarter as long a search": searched("search.decide_by={epochs: 0.25}"),
    "half as long a search": searched("search.decide_by={epochs: 0.5}"),
    "preset reference": searched("search.preset=reference"),
    "no task gradient to sizes": without_task_gradient,
    "cut in steps": in_steps(),
    "cut in steps, untrained": in_steps(untrained=True),
    "cut in one step": in_steps("search.training_free.step=0.01"),
    "uniform": ruled(uniform),
    "uniform, compensated": ruled(uniform, compensated=True),
    "random": ruled(random),
    "random, compensated": ruled(random, compensated=True),
    "live, then uniform": ruled(live_then_uniform),
    "live, then uniform, compensated": ruled(live_then_uniform, compensated=True),
    "knapsack over Taylor": ruled(knapsack),
    "knapsack over Taylor, compensated": ruled(knapsack, compensated=True),
    "Torch-Pruning, local": torch_pruned("local"),
    "Torch-Pruning, global": torch_pruned("global"),
    "Torch-Pruning, isomorphic": torch_pruned("isomorphic"),
    "Torch-Pruning, global, Hessian": torch_pruned("global", hessian=True),
    "Torch-Pruning, isomorphic, Hessian": torch_pruned("isomorphic", hessian=True),
    "the sizes of default": ruled(sizes_of_row("default")),
    "the sizes of default, compensated": ruled(sizes_of_row("default"), compensated=True),
    "blocks alike, means of default": ruled(alike("default")),
    "blocks alike, means of default, compensated": ruled(alike("default"), compensated=True),
    "the sizes of cut in steps": ruled(sizes_of_row("cut in steps")),
    "blocks alike, means of cut in steps": ruled(alike("cut in steps")),
    "blocks alike, means of cut in steps, compensated": ruled(
        alike("cut in steps"), compensated=True
    ),
}


def _search(case: Case, settings: Sequence[str]) -> nn.Module:
    """The network of a search."""
    study = case.settings(*settings)
    result = search(
        case.parent.model,
        case.data,
        study.search,
        name=study.model.name,
        kwargs=case.parent.kwargs,
        axes=meta_parent(study).axes,
        seed=case.seed,
    )
    return result.subnet.model

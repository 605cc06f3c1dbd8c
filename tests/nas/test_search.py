"""A search on real images: within its budget, reproducible, and guided by the data."""

from __future__ import annotations

from dataclasses import replace

import pytest
import timm
import torch
from conftest import KWARGS, NAME, SPACE
from torch.utils._python_dispatch import TorchDispatchMode

from ofbnas.config import FinetuneConfig, SearchConfig, TrainConfig
from ofbnas.errors import InputError, NotFiniteError
from ofbnas.models.axes import axes
from ofbnas.models.cost import cost_of, sizes_of
from ofbnas.models.supernet import Supernet
from ofbnas.nas.run import StageRun
from ofbnas.nas.search import search
from ofbnas.nas.stage import Stage
from ofbnas.training.data import load_data
from ofbnas.training.evaluation import evaluate
from ofbnas.training.finetune import finetune
from ofbnas.training.plain import fit


def config(**changes) -> SearchConfig:
    values = {
        "epochs": 4,
        "batch_size": 32,
        "lr": 2e-3,
        "alpha": {"lr": 0.1, "spread": 1.0},
        "decide_by": 1.0,
        "refine": {"candidates": 2, "images": 128},
    }
    values |= {
        "budget": {"gmacs_share": 0.5},
        "one_hot_weight": 0.5,
        "decision_interval": {"epochs": 1 / 3},
    }
    return SearchConfig(**values | changes)


def run(model, data, seed=0, space=SPACE, kwargs=KWARGS, **changes):
    return search(
        model, data, config(**changes), name=NAME, kwargs=kwargs, axes=axes(model, space), seed=seed
    )


def full(model, metric="macs"):
    return cost_of(model, axes(model), metric).of(sizes_of(axes(model)))


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("metric", ["macs", "params"])
def test_the_subnet_lies_in_the_budgets_window(model, data, metric, share):
    name = {"macs": "gmacs_share", "params": "params_share"}[metric]
    fine = {
        "embed": range(6, 17),
        "heads": range(1, 5),
        "head_size": range(1, 5),
        "mlp": range(8, 65, 2),
    }
    found = run(model, data, space=fine, epochs=2, budget={name: share})
    cost = getattr(found, metric)
    assert 0.98 * share * full(model, metric) <= cost <= share * full(model, metric)
    assert found.note is None


@pytest.mark.parametrize(
    "loss", [{}, {"one_hot_weight": 5.0, "budget_weight": 0.0, "budget_ascent": 0.0}]
)
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.2, 0.45, 1.0])
def test_the_budget_is_kept_for_any_seed_and_any_weights_of_the_loss(
    model, data, share, seed, loss
):
    fine = {
        "embed": range(2, 17),
        "heads": range(1, 5),
        "head_size": range(1, 5),
        "mlp": range(4, 65),
    }
    found = run(model, data, space=fine, seed=seed, epochs=1, budget={"gmacs_share": share}, **loss)
    assert 0.98 * share * full(model) <= found.macs <= share * full(model)


@pytest.mark.parametrize(
    ("one_hot_weight", "norm_weight", "terms"),
    [
        (0.0, None, set()),
        (0.5, None, {"one_hot", "importance_norm"}),
        (0.0, 0.5, {"importance_norm"}),
        (0.5, 0.0, {"one_hot"}),
    ],
)
def test_the_importance_norm_has_a_weight_of_its_own(
    model, data, one_hot_weight, norm_weight, terms
):
    norm = {"norm_weight": norm_weight}
    found = run(model, data, epochs=1, one_hot_weight=one_hot_weight, importance=norm)
    assert found.history[0].keys() & {"one_hot", "importance_norm"} == terms


def test_the_importance_norm_lowers_importance_without_the_one_hot_loss(model, data):
    def norms(weight):
        importance = {"norm_weight": weight, "norm_attn": 1.0, "norm_mlp": 1.0, "norm_embed": 1.0}
        changes = {"one_hot_weight": 0.0, "importance": importance, "threshold": 1e-6}
        found = run(model, data, epochs=1, **changes)
        return [record["importance_norm"] for record in found.history]

    almost_free, weighted = norms(1e-9), norms(10.0)
    assert all(low < high for low, high in zip(weighted, almost_free, strict=True))


def test_a_budget_between_options_says_how_near_it_came(model, data):
    found = run(model, data, space={"mlp": [16, 64]}, epochs=1, budget={"gmacs_share": 0.9})
    assert found.macs <= 0.9 * full(model)
    assert found.note and "no architecture of this space" in found.note


def test_the_recorded_cost_is_the_subnets(model, data):
    found = run(model, data)
    plain = found.subnet.model
    assert type(plain) is type(model)
    assert found.params == sum(p.numel() for p in plain.parameters())
    assert found.macs == cost_of(plain, axes(plain), "macs").of(sizes_of(axes(plain)))
    assert {a.name: a.size for a in axes(plain)} == found.subnet.architecture.sizes


def test_an_impossible_budget_is_refused_before_training_with_what_is_possible(model, data):
    with pytest.raises(
        InputError, match=r"out of reach: this search space reaches from [\d,]+ to [\d,]+"
    ):
        run(model, data, budget={"gmacs_share": 0.01})


def test_the_whole_budget_gives_the_parents_sizes(model, data):
    found = run(model, data, epochs=1, budget={"gmacs_share": 1.0, "tolerance": 0.001})
    assert found.macs == full(model)


def test_the_parent_is_left_as_it_was(model, data):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    run(model, data, epochs=1)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(p.grad is not None for p in model.parameters())


def test_the_same_seed_finds_the_same(model, data):
    first, second = run(model, data, seed=1), run(model, data, seed=1)
    assert first.subnet.architecture == second.subnet.architecture
    assert first.history == second.history
    for name, tensor in first.subnet.model.state_dict().items():
        assert torch.equal(tensor, second.subnet.model.state_dict()[name]), name


def test_another_seed_finds_another(model, data):
    assert run(model, data, seed=1).history != run(model, data, seed=2).history


def test_the_task_moves_the_options(model, data):
    """Same seed, other labels: if decisions ignored the data, the architectures would be equal."""
    torch.manual_seed(0)
    other = replace(
        data, train=replace(data.train, labels=(data.train.images[:, 0, 3, 3] > 0).long())
    )
    one, two = (run(model, d, epochs=8) for d in (data, other))
    assert one.subnet.architecture.sizes != two.subnet.architecture.sizes


@pytest.mark.slow
def test_other_seeds_find_subnets_of_similar_accuracy():
    """The counterpart: with the same data, chance has little influence on the accuracy."""
    data = load_data("digits", shift=1)
    torch.manual_seed(0)
    kwargs = KWARGS | {"patch_size": 4, "class_token": False, "global_pool": "avg", "embed_dim": 32}
    model = timm.create_model(NAME, **kwargs)
    fit(model, data, TrainConfig(epochs=20, lr=4e-3), seed=0)
    settings = SearchConfig(
        epochs=20, lr=4e-3, budget={"gmacs_share": 0.5}, refine={"candidates": 4, "images": 256}
    )
    found = [
        search(model, data, settings, name=NAME, kwargs=kwargs, seed=seed) for seed in range(3)
    ]
    accuracies = [evaluate(one.subnet.model, data.test).top1 for one in found]
    assert max(accuracies) - min(accuracies) < 4
    assert min(accuracies) > evaluate(model, data.test).top1 - 5


def test_units_lead_back_to_the_parent(model, data):
    """If nothing is learned, the subnet's weights are the parent's at the recorded units."""
    frozen = config(
        epochs=1, lr=1e-12, budget={"gmacs_share": 0.6}, pmim={"weight": 0}, weight_decay=0
    )
    found = search(
        model, data, frozen, name=NAME, kwargs=KWARGS, axes=axes(model, {"mlp": [16, 32]})
    )
    for index in range(2):
        units = found.subnet.units[f"blocks.{index}.mlp"][0]
        ours = found.subnet.model.blocks[index].mlp.fc2.weight
        torch.testing.assert_close(ours, model.blocks[index].mlp.fc2.weight[:, units])


def test_options_of_one_size_below_the_parents_are_taken(model, data):
    found = run(model, data, space={"mlp": [32]}, budget={"gmacs_share": 0.9, "tolerance": 0.5})
    assert found.subnet.architecture.sizes["blocks.0.mlp"] == (1, 32)


def test_the_history_follows_the_options_down(model, data):
    found = run(model, data, epochs=8)
    left = [sum(axis["options"] for axis in record["axes"]) for record in found.history]
    assert left == sorted(left, reverse=True) and left[0] > left[-1]
    weights = [record["importance_weight"] for record in found.history]
    assert weights == sorted(weights, reverse=True) and weights[-1] == pytest.approx(0.10)


@pytest.mark.parametrize("decide_by", [1.0, {"epochs": 50}])
def test_a_search_with_open_axes_still_ends(model, data, decide_by):
    found = run(model, data, epochs=1, alpha={"lr": 1e-9}, decide_by=decide_by)
    assert found.forced == 5
    assert found.macs <= 0.5 * full(model)


def test_masked_image_modelling_ends_when_all_axes_are_decided(model, data):
    found = run(model, data, epochs=8, alpha={"lr": 1.0})
    assert found.forced == 0
    assert {name for name, _ in found.subnet.model.named_parameters()} == {
        n for n, _ in model.named_parameters()
    }


def test_a_loss_that_is_not_finite_ends_the_search(model, data):
    with pytest.raises(NotFiniteError, match="learning rate"):
        run(model, data, lr=1e30, clip_grad=None)


@pytest.mark.slow
def test_finetuning_improves_the_subnet_and_leaves_the_old_one(data):
    torch.manual_seed(0)
    kwargs = KWARGS | {"patch_size": 4, "class_token": False, "global_pool": "avg"}
    model = timm.create_model(NAME, **kwargs)
    fit(model, data, TrainConfig(epochs=15, lr=5e-3, batch_size=32), seed=0)
    found = run(model, data, kwargs=kwargs, epochs=2)
    before = evaluate(found.subnet.model, data.val).top1
    for distill in (
        None,
        {"weight": 0.5},
        {"weight": 0.5, "hard": True},
        {"weight": 0.5, "features": 1.0},
    ):
        settings = FinetuneConfig(epochs=20, lr=5e-3, batch_size=32, distill=distill)
        tuned = finetune(found.subnet, data, settings, teacher=model)
        assert evaluate(tuned.model, data.val).top1 > before
        assert tuned.architecture == found.subnet.architecture
    assert evaluate(found.subnet.model, data.val).top1 == before


def test_a_search_distils_from_the_parent(model, data):
    """With the whole loss from the parent, labels have no effect."""
    shuffled = replace(data, train=replace(data.train, labels=data.train.labels.flip(0)))
    settings = {
        "distill": {"weight": 1.0, "features": 0.5},
        "epochs": 3,
        "pmim": {"weight": 0},
        "importance": {"start": "noise"},
    }
    one, two = (run(model, d, **settings) for d in (data, shuffled))
    assert one.subnet.architecture == two.subnet.architecture
    for name, tensor in one.subnet.model.state_dict().items():
        assert torch.equal(tensor, two.subnet.model.state_dict()[name]), name


def test_distillation_without_a_teacher_is_an_error(model, data):
    found = run(model, data, epochs=1)
    with pytest.raises(ValueError, match="teacher"):
        finetune(found.subnet, data, FinetuneConfig(epochs=1, distill={}))


def test_evaluation_counts_every_image_once(model, data):
    outputs = model(data.test.images)
    top1 = (outputs.argmax(1) == data.test.labels).double().mean().item() * 100
    for batch_size in (1, 7, 1000):
        assert evaluate(model, data.test, batch_size).top1 == pytest.approx(top1)


def test_supernet_step_trains_all_that_it_should(model, data):
    supernet = Supernet(model, axes(model, SPACE))
    supernet(data.train.images[:8]).square().mean().backward()
    assert not [name for name, p in supernet.trained().items() if p.grad is None]


class Syncs(TorchDispatchMode):
    """Records the operations that make the host wait for a device."""

    WAITING = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "is_nonzero", "unique")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in self.WAITING or (
            name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1])
        ):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("settings", [{}, {"distill": {"features": 1.0}, "residual_mask": True}])
def test_a_step_never_waits_for_the_device(model, data, settings):
    searcher = StageRun(Stage(model, data, config(**settings), axes(model, SPACE), seed=0))
    parts = [(data.train.images[:8], data.train.labels[:8])]
    for step in (0, 1):
        with Syncs() as syncs:
            searcher.step(parts, step)
        assert syncs.found == []
    with Syncs() as syncs:
        float(searcher.constraint.multiplier)
    assert syncs.found == ["_local_scalar_dense"], "the counter counts"

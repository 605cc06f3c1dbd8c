"""A search goes on from another one's checkpoint with other values, of fields that allow it."""

from __future__ import annotations

import shutil

import pytest
import torch
from conftest import SPACE, make
from events import Killed, Recorder
from own_study import SHARE, tiny

from ofbnas.errors import InputError
from ofbnas.models.axes import axes
from ofbnas.nas.perturbed import PERTURBABLE, Origin, go_on_from
from ofbnas.nas.run import StageRun
from ofbnas.nas.stage import Stage
from ofbnas.training.checkpoint import StaleCheckpointError
from ofbnas.training.loop import train

STUDY = tiny(
    search={
        "epochs": 4, "decide_by": 1.0, "decision_interval": 0.25, "distill": {"weight": 0.5},
        "one_hot_weight": 0.1, "one_hot_warmup": {"steps": 1}, "alpha": {"lr": 0.02},
    },
    sweep={"params": {}},
)  # fmt: skip
# For each field that may be perturbed, another value than the study's.
OTHER = {
    "search.lr": 1e-2,
    "search.weight_decay": 0.5,
    "search.clip_grad": 0.01,
    "search.label_smoothing": 0.4,
    "search.augment.erasing": 0.9,
    "search.distill.weight": 0.9,
    "search.distill.temperature": 5.0,
    "search.one_hot_weight": 0.5,
    "search.importance.norm_weight": 0.9,
    "search.budget_weight": 50.0,
    "search.budget_ascent": 5.0,
    "search.threshold": 0.99,
    "search.alpha.lr": 0.1,
    "search.pmim.weight": 3.0,
    "search.pmim.mask_ratio": 0.75,
    "search.pmim.decoder.lr": 0.05,
}


def run(data, checkpoint, trial, epochs):
    """A trial's search until some epochs are done, from its checkpoint if there is one."""
    model = make()
    search = STUDY.with_values(trial.values).search
    stage = Stage(model, data, search, axes(model, SPACE), STUDY.seed + trial.trial)
    made = StageRun(stage)
    with pytest.raises(Killed):
        train(made, callbacks=[Recorder(killed_after=epochs)], checkpoint=checkpoint)
    return made.state()


def tensors_of(state):
    network = state["network"]
    alive = [mask["alive"].flatten() for mask in network["masks"].values()]
    return [
        state["multiplier"].reshape(1),
        *alive,
        *(t.flatten() for t in network["tensors"].values()),
    ]


def same(one, other):
    pairs = zip(tensors_of(one), tensors_of(other), strict=True)
    return all(a.shape == b.shape and torch.equal(a, b) for a, b in pairs)


@pytest.fixture(scope="module")
def begun(data, tmp_path_factory):
    """The checkpoint of a trial's first epoch."""
    checkpoint = tmp_path_factory.mktemp("begun") / "search.pt"
    run(data, checkpoint, Origin(0, {}), 1)
    return checkpoint


@pytest.fixture(scope="module")
def unchanged(data, begun, tmp_path_factory):
    """The state after its second epoch, with the same values."""
    checkpoint = shutil.copy(begun, tmp_path_factory.mktemp("unchanged") / "search.pt")
    return run(data, checkpoint, Origin(0, {}), 2)


def test_every_field_that_may_be_perturbed_is_tried():
    assert {name.removesuffix(".erasing") for name in OTHER} | {"finetune"} == set(PERTURBABLE)


@pytest.mark.parametrize("name", OTHER)
def test_a_perturbed_value_acts_from_the_next_step(name, data, begun, unchanged, tmp_path):
    checkpoint = shutil.copy(begun, tmp_path / "search.pt")
    was, now = Origin(0, {}), Origin(0, {name: OTHER[name]})
    go_on_from(checkpoint, STUDY, axes(make(), SPACE), was, now)
    assert not same(run(data, checkpoint, now, 2), unchanged)


def test_what_changes_nothing_goes_on_bit_for_bit(data, begun, unchanged, tmp_path):
    checkpoint = shutil.copy(begun, tmp_path / "search.pt")
    was, now = Origin(0, {}), Origin(0, {"finetune.lr": 1e-3, "search.lr": STUDY.search.lr})
    go_on_from(checkpoint, STUDY, axes(make(), SPACE), was, now)
    assert same(run(data, checkpoint, now, 2), unchanged)


def test_another_trial_goes_on_with_its_own_seed(data, begun, unchanged, tmp_path):
    checkpoint = shutil.copy(begun, tmp_path / "search.pt")
    with pytest.raises(StaleCheckpointError):
        run(data, checkpoint, Origin(1, {}), 2)
    go_on_from(checkpoint, STUDY, axes(make(), SPACE), Origin(0, {}), Origin(1, {}))
    assert not same(run(data, checkpoint, Origin(1, {}), 2), unchanged)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({SHARE: 0.4}, f"{SHARE} goes from 0.5 to 0.4.* removed for the budget"),
        ({"search.epochs": 5}, "schedules and decisions are placed by it"),
        ({"search.betas": (0.8, 0.9)}, "moments"),
        ({"search.importance.mean": 1.0}, "on the start of a search alone"),
        ({"search.residual_mask": False}, "shapes a search as a whole.*search.lr"),
        ({"search.pmim.weight": 0.0}, "decoder from the start or never"),
        ({"search.pmim.mask_ratio": 0.0}, "decoder from the start or never"),
    ],
)
def test_other_values_are_refused_with_the_reason(values, why, begun, tmp_path):
    checkpoint = shutil.copy(begun, tmp_path / "search.pt")
    before = checkpoint.read_bytes()
    with pytest.raises(InputError, match=why):
        go_on_from(checkpoint, STUDY, axes(make(), SPACE), Origin(0, {}), Origin(0, values))
    assert checkpoint.read_bytes() == before

"""A run that is interrupted anywhere and resumed equals the uninterrupted run, bit for bit."""

from __future__ import annotations

import copy
import shutil
import time

import pytest
import torch
from conftest import DIGITS, KWARGS, NAME, SPACE, make
from events import Killed, Recorder
from test_search import config

from ofbnas.config import FinetuneConfig, TrainConfig
from ofbnas.config.study_file import load_study
from ofbnas.errors import InputError
from ofbnas.models.axes import axes
from ofbnas.nas.search import search
from ofbnas.study.parent import untrained_parent
from ofbnas.study.trial import run_trial
from ofbnas.training.checkpoint import load_checkpoint, save_checkpoint
from ofbnas.training.finetune import finetune
from ofbnas.training.plain import fit

SETTINGS = {
    "all open": {"alpha": {"lr": 1e-3}},
    "some decided": {"alpha": {"lr": 0.1}},
    "all decided": {"alpha": {"lr": 1.0}},
    "distilled, residual mask": {
        "distill": {"features": 1.0},
        "residual_mask": True,
        "importance": {"start": "taylor"},
    },
    "dropout": {},
    "average, accumulated, folded": {"ema": 0.9, "accumulate": 2, "decided_masks": "folded"},
    "mixed, erased, other optimizer": {
        "optimizer": "lamb",
        "augment": {
            "mixup": 0.8,
            "cutmix": 1.0,
            "erasing": 0.5,
            "repeats": 2,
            "rand_augment": "rand-m5-mstd0.5",
        },
        "drop_path": 0.2,
        "decide_by": 0.5,
    },
}


@pytest.mark.parametrize("case", SETTINGS)
def test_an_interrupted_search_ends_as_the_uninterrupted_one(data, tmp_path, case):
    model = make(drop_path_rate=0.2, proj_drop_rate=0.1) if case == "dropout" else make()

    def run(killed_after=None, checkpoint=None):
        told = Recorder(killed_after=killed_after)
        found = search(
            copy.deepcopy(model), data, config(epochs=6, **SETTINGS[case]), name=NAME, kwargs=KWARGS, seed=5,
            axes=axes(model, SPACE), checkpoint=checkpoint,
            callbacks=[told],
        )  # fmt: skip
        return found, told.epochs

    whole, all_losses = run()
    for killed_after in (1, 3, 6):  # each time it resumes from the checkpoint of the time before
        with pytest.raises(Killed):
            run(killed_after, tmp_path / "search.pt")
        torch.manual_seed(999)  # a new process has another random state
        shutil.copy(tmp_path / "search.pt", tmp_path / f"after-{killed_after}.pt")
    for epochs_done in (3, 6):
        again, last_losses = run(checkpoint=tmp_path / f"after-{epochs_done}.pt")
        assert last_losses == all_losses[epochs_done:]
        assert again.subnet.architecture == whole.subnet.architecture
        assert again.subnet.units == whole.subnet.units
        assert again.history == whole.history and again.forced == whole.forced
        for name, tensor in whole.subnet.model.state_dict().items():
            assert torch.equal(tensor, again.subnet.model.state_dict()[name]), name


@pytest.mark.parametrize("at", [1, 4])
def test_interrupted_finetuning_ends_as_the_uninterrupted_one(model, data, tmp_path, at):
    found = search(model, data, config(epochs=1), name=NAME, kwargs=KWARGS, axes=axes(model, SPACE))
    settings = FinetuneConfig(epochs=4, batch_size=32, distill={})

    def run(killed_after=None, checkpoint=None):
        told = Recorder(killed_after=killed_after)
        return finetune(
            found.subnet, data, settings, teacher=model, callbacks=[told], checkpoint=checkpoint
        )

    whole = run().model.state_dict()
    with pytest.raises(Killed):
        run(at, tmp_path / "finetune.pt")
    again = run(checkpoint=tmp_path / "finetune.pt").model.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in whole.items())


def test_checkpoints_hold_no_code_and_are_never_seen_in_part(tmp_path):
    save_checkpoint(tmp_path / "a.pt", {"epoch": 3, "tensor": torch.ones(2)}, "lr 1")
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]
    assert torch.load(tmp_path / "a.pt", weights_only=True)["epoch"] == 3
    assert load_checkpoint(tmp_path / "a.pt", "lr 1")["tensor"].tolist() == [1, 1]
    with pytest.raises(InputError, match="other settings"):
        load_checkpoint(tmp_path / "a.pt", "lr 2")


def test_plain_training_resumes_too(data, tmp_path):
    settings = TrainConfig(epochs=3, batch_size=32, ema=0.9)
    whole, broken = make(proj_drop_rate=0.1), make(proj_drop_rate=0.1)
    torch.manual_seed(0)
    fit(whole, data, settings, seed=0)
    torch.manual_seed(0)
    with pytest.raises(Killed):
        fit(
            broken,
            data,
            settings,
            seed=0,
            callbacks=[Recorder(killed_after=2)],
            checkpoint=tmp_path / "fit.pt",
        )
    again = make(proj_drop_rate=0.1)
    fit(again, data, settings, seed=0, checkpoint=tmp_path / "fit.pt")
    assert all(
        torch.equal(tensor, again.state_dict()[name]) for name, tensor in whole.state_dict().items()
    )


@pytest.mark.parametrize("at", [("search", 2), ("finetune", 1)])
def test_an_interrupted_trial_ends_with_the_same_row(data, tmp_path, at):
    settings = [
        "search.epochs=3",
        "finetune.epochs=2",
        "model.kwargs.depth=2",
        "model.kwargs.embed_dim=32",
    ]
    settings += ["latency.batch_size=2", "latency.batches=5"]
    study = load_study(DIGITS, settings)
    parent = untrained_parent(study).model.state_dict()

    def run(folder, killed_at=None, gpus=None):
        told = Recorder(killed_after=killed_at)
        return run_trial(
            study, {"search.budget.gmacs_share": 0.4}, 7, folder, data, parent, [told], gpus
        )

    whole = run(tmp_path / "whole")
    started = time.monotonic()
    with pytest.raises(Killed):
        run(tmp_path / "broken", at)
    lost = time.monotonic()
    checkpoints = tmp_path / "broken" / "checkpoints" / "trial-00007"
    before = torch.load(checkpoints / "seconds.pt", weights_only=True)["seconds"]
    assert 0 < before < lost - started
    assert (
        list((tmp_path / "broken").rglob("*.pt"))
        and not (tmp_path / "broken" / "architectures").exists()
    )
    again = run(tmp_path / "broken", gpus=0.5)
    assert before < again.seconds < before + time.monotonic() - lost, "both processes count"
    assert again.gpu_hours == 0.5 * again.seconds / 3600
    assert whole.gpu_hours == 0, "on a CPU"
    assert 0 < again.latency_ms <= again.latency_p90_ms and again.parent_latency_ms > 0
    assert "batch 2, float32" in again.latency_device
    for name in (
        "arch_id",
        "gmacs",
        "top1",
        "val_top1",
        "top1_before_finetune",
        "weights",
        "weights_sha256",
    ):
        assert getattr(again, name) == getattr(whole, name), name
    assert not (tmp_path / "broken" / "checkpoints").exists()


def test_a_checkpoint_of_other_settings_is_set_aside_and_the_trial_starts_over(
    data, tmp_path, caplog
):
    """As if the journal had lost its end and the trial's number was used again with other values."""
    study = load_study(DIGITS, ["search.epochs=2", "finetune.epochs=1", "model.kwargs.depth=1"])
    parent = untrained_parent(study).model.state_dict()

    def run(folder, share, killed_at=None):
        told = Recorder(killed_after=killed_at)
        return run_trial(
            study, {"search.budget.gmacs_share": share}, 0, folder, data, parent, [told]
        )

    with pytest.raises(Killed):
        run(tmp_path / "study", 0.6, ("search", 1))
    again, other = run(tmp_path / "study", 0.4), run(tmp_path / "new", 0.4)
    assert again.weights_sha256 == other.weights_sha256
    assert (
        "was written by a run with other settings" in caplog.text
        and "search.pt.damaged-" in caplog.text
    )

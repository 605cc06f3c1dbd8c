"""The history of a trial: each decision and each epoch of the whole run, live, and once."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import torch
from commands import ofbnas
from conftest import DIGITS, ROOT, make
from events import Killed, Recorder
from made_studies import decisions_of, epochs_of

from ofbnas import read_history
from ofbnas.config import TrainConfig
from ofbnas.config.study_file import load_study
from ofbnas.study.cluster.histories import Histories
from ofbnas.study.parent import untrained_parent
from ofbnas.study.trial import run_trial
from ofbnas.training.evaluation import evaluate
from ofbnas.training.events import Callback
from ofbnas.training.plain import fit

SETTINGS = ["search.epochs=3", "finetune.epochs=2", "model.kwargs.depth=1"]


class KilledBeforeCheckpoint(Callback):
    """Dies when an epoch was recorded, before its checkpoint is written."""

    def __init__(self, phase: str, epoch: int) -> None:
        self.when = (phase, epoch)

    def on_record(self, record) -> None:
        if record["kind"] == "epoch" and (record["phase"], record["epoch"]) == self.when:
            raise Killed


@pytest.fixture(scope="module")
def runs(data):
    """Runs a small trial in a folder."""
    study = load_study(DIGITS, SETTINGS)
    parent = untrained_parent(study).model.state_dict()
    params = {"search.budget.gmacs_share": 0.4}
    return lambda folder, *callbacks, **changes: run_trial(
        study.with_values(changes), params, 7, folder, data, parent, callbacks
    )


@pytest.fixture(scope="module")
def whole(runs, tmp_path_factory):
    """The folder and the row of a trial that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, runs(folder)


def epochs_of_trial(folder) -> list[tuple[str, int]]:
    history = read_history(folder)
    epochs = history[history["kind"] == "epoch"]
    return list(zip(epochs["phase"], epochs["epoch"], strict=True))


EPOCHS = [("search", 1), ("search", 2), ("search", 3), ("finetune", 1), ("finetune", 2)]


def test_the_history_goes_on_to_the_end_and_ends_at_the_rows_accuracy(whole):
    folder, row = whole
    history = read_history(folder)
    assert set(history["study"]) == {"digits"} and set(history["trial"]) == {7}
    assert epochs_of_trial(folder) == EPOCHS
    epochs = history[history["kind"] == "epoch"]
    assert epochs[["task", "val_top1", "val_loss", "lr"]].notna().all(axis=None)
    assert epochs["axes"].isna().all() and epochs["val_top1"].iloc[-1] == row.val_top1
    decisions = history[history["kind"] == "decision"]
    assert len(decisions) and decisions["axes"].notna().all() and decisions["val_top1"].isna().all()


@pytest.mark.parametrize(
    "killed",
    [
        Recorder(killed_after=("search", 2)),
        KilledBeforeCheckpoint("search", 2),
        Recorder(killed_after=("search", 3)),
        KilledBeforeCheckpoint("finetune", 2),
    ],
    ids=["after a checkpoint", "before one", "between phases", "in the last epoch"],
)
def test_a_killed_trial_shows_what_was_done_and_then_has_each_epoch_once(
    runs, whole, tmp_path, killed
):
    with pytest.raises(Killed):
        runs(tmp_path, killed)
    before = epochs_of_trial(tmp_path)
    assert 0 < len(before) < len(EPOCHS) and before == EPOCHS[: len(before)]
    runs(tmp_path)
    pd.testing.assert_frame_equal(read_history(tmp_path), read_history(whole[0]))


def test_looking_at_accuracy_changes_nothing(runs, whole, tmp_path):
    never = {"search.evaluate_every": 0, "finetune.evaluate_every": 0}
    row = runs(tmp_path, **never)
    history = read_history(tmp_path)
    assert row.weights_sha256 == whole[1].weights_sha256
    assert history["val_top1"].isna().all() and epochs_of_trial(tmp_path) == EPOCHS


def test_a_checkpoint_is_resumed_whether_or_not_accuracy_is_looked_at(runs, whole, tmp_path):
    with pytest.raises(Killed):
        runs(tmp_path, Recorder(killed_after=("search", 2)))
    assert runs(tmp_path, **{"search.evaluate_every": 0}).val_top1 == whole[1].val_top1
    assert read_history(tmp_path).query("kind == 'epoch'")["val_top1"].notna().tolist() == [
        *(True, True, False),
        *(True, True),
    ]


@pytest.mark.parametrize("every", [0, 2])
def test_every_so_many_epochs_and_the_last_one_are_looked_at(data, every):
    """With dropped branches and averaged weights, which are those that are looked at."""
    records = []

    class Records(Callback):
        def on_record(self, record):
            records.append(record)

    settings = TrainConfig(epochs=3, batch_size=64, ema=0.9, drop_path=0.2, evaluate_every=every)
    model, other = make(proj_drop_rate=0.1), make(proj_drop_rate=0.1)
    fit(model, data, settings, seed=0, callbacks=[Records()])
    measured = [record["epoch"] for record in records if "val_top1" in record]
    assert measured == ([2, 3] if every else [])
    fit(other, data, settings.model_copy(update={"evaluate_every": 1}), seed=0)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    if every:
        accuracy = evaluate(model, data.val)
        assert records[-1]["val_top1"] == accuracy.top1
        assert records[-1]["val_loss"] == pytest.approx(accuracy.loss)


def test_every_command_takes_the_folder_of_a_search(whole, tmp_path):
    folder, row = whole

    def told(*args):
        done = ofbnas(*args, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    evaluated = told("evaluate", folder)
    assert evaluated["top1"] == evaluated["recorded_top1"] == row.top1
    assert [one["arch_id"] for one in told("arch", "list", folder)] == [row.arch_id]
    assert told("arch", "show", folder, "--arch", row.arch_id)["val_top1"] == row.val_top1
    assert len(told("front", "show", folder)["front"]) == 1
    reported = ofbnas("study", "report", folder, "--out", tmp_path / "page.html")
    assert reported.returncode == 0 and "has no study.yaml" in reported.stderr
    assert row.arch_id in (tmp_path / "page.html").read_text()


def test_a_history_of_before_has_decisions_of_a_search():
    history = read_history(ROOT / "studies" / "tables" / "digits")
    assert set(history["kind"]) == {"decision"} and set(history["phase"]) == {"search"}
    assert history["axes"].notna().all()


def test_where_nodes_share_no_folder_the_driver_writes_what_it_hears(tmp_path):
    (tmp_path / "study.yaml").touch()
    records = [*decisions_of(), *epochs_of()]
    driver = Histories(tmp_path, "digits", write=True)
    driver.begin(3)
    driver.add(3, records[:10])
    assert len(read_history(tmp_path)) == 10, "while the trial runs"
    driver.begin(3)  # its process was lost, and it starts again from its checkpoint
    driver.add(3, records[:9])
    driver.add(3, records[9:])
    assert len(read_history(tmp_path)) == len(records)

    silent = Histories(tmp_path / "other", "digits", write=False)
    silent.begin(0)
    silent.add(0, records)
    assert not (tmp_path / "other").exists(), "the trial writes its own"

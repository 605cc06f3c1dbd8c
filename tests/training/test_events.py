"""Callbacks get every event once, in order."""

from __future__ import annotations

import pytest
from conftest import KWARGS, NAME, SPACE, make
from events import Killed, Recorder
from test_search import config

from ofbnas import search
from ofbnas.config import FinetuneConfig, TrainConfig
from ofbnas.models.axes import axes
from ofbnas.training.events import Callback
from ofbnas.training.finetune import finetune
from ofbnas.training.plain import fit


def searched(data, *callbacks, epochs=2, checkpoint=None, rungs=()):
    model = make()
    settings = config(epochs=epochs, decide_by=0.5, decision_interval=0.5)
    return search(
        model, data, settings, name=NAME, kwargs=KWARGS, axes=axes(model, SPACE),
        callbacks=callbacks, checkpoint=checkpoint, rungs=rungs,
    )  # fmt: skip


def test_a_search_reports_each_step_decision_rung_and_epoch_once_and_in_order(data):
    told = Recorder()
    found = searched(data, told, rungs=[1])
    steps = data.num_batches(32)
    assert told.events[0] == ("begin", "search", 0, 2)
    assert told.events[-1] == ("end", "search")
    assert [event[2] for event in told.events if event[0] == "step"] == list(range(2 * steps))
    others = [event for event in told.events if event[0] != "step"]
    assert others == [
        ("begin", "search", 0, 2),
        *(("decision", record["step"]) for record in found.history),
        ("rung", 1),
        ("epoch", "search", 1, 2),
        ("epoch", "search", 2, 2),
        ("end", "search"),
    ]
    assert told.decisions == found.history
    assert len(found.history) == 2


def test_parents_and_fine_tuning_report_their_phase(data):
    parent, tuned = Recorder(), Recorder()
    fit(make(), data, TrainConfig(epochs=1, batch_size=32), seed=0, callbacks=[parent])
    finetune(
        searched(data).subnet, data, FinetuneConfig(epochs=1, batch_size=32), callbacks=[tuned]
    )
    assert {event[1] for event in parent.events} == {"parent"}
    assert {event[1] for event in tuned.events} == {"finetune"}


def test_a_resumed_run_says_where_it_begins(data, tmp_path):
    with pytest.raises(Killed):
        searched(data, Recorder(killed_after=1), checkpoint=tmp_path / "search.pt")
    resumed = Recorder()
    searched(data, resumed, checkpoint=tmp_path / "search.pt")
    assert resumed.events[0] == ("begin", "search", 1, 2)
    assert [epoch for epoch, _ in resumed.epochs] == [2]


def test_callbacks_change_nothing_and_may_leave_methods_out(data):
    plain, told = searched(data), searched(data, Callback(), Recorder())
    assert plain.history == told.history
    assert plain.subnet.architecture == told.subnet.architecture

"""The progress of trials in a terminal: where each is, and how its accuracy has gone."""

from __future__ import annotations

import io

import pytest
from made_studies import begin, epochs_of
from rich.console import Console

from ofbnas.cli.curves import BARS, BETWEEN, WIDTH, accuracy_curve
from ofbnas.cli.progress import RUNNING_ROWS, EpochLines, LiveView
from ofbnas.study.report import study_of


@pytest.mark.parametrize("columns", [80, 120])
def test_the_live_view_has_a_line_for_each_trial_with_its_curve(tmp_path, columns):
    folder = begin(tmp_path)
    console = Console(file=io.StringIO(), width=columns)
    view = LiveView(study_of(folder), folder, console)
    view.parent(3, 80, {"task": 1.5, "val_top1": 40.0})
    console.print(view.render())
    view.begin(0, 12)
    history = epochs_of(8)
    for trial in range(RUNNING_ROWS + 2):
        view.started(trial)
    view.progress(0, "search", 6, 6, history[:6])
    view.progress(1, "finetune", 2, 2, history)
    console.print(view.render())
    lines = console.file.getvalue().splitlines()
    assert all(len(line.rstrip()) <= columns for line in lines)
    assert "epoch 3 of 80: loss 1.5, val_top1 40.00" in lines[0]
    (search,) = [line for line in lines if line.startswith("trial 0:")]
    assert search.split() == ["trial", "0:", "search", "6/6", "▁▂▃▅▆█", *search.split()[5:]]
    assert search.rstrip().endswith("loss 0.9286, val_top1 87.14")
    (tuned,) = [line for line in lines if line.startswith("trial 1:")]
    assert f"{BETWEEN}▇█" in tuned and tuned.rstrip().endswith("loss 0.5, val_top1 98.00")
    assert "and 2 more" in lines


def test_a_curve_of_many_epochs_has_a_fixed_width_and_ends_at_the_last():
    curve = accuracy_curve(epochs_of(500))
    assert len(curve) == WIDTH and curve[0] == BARS[0] and curve[-1] == BARS[-1]
    assert curve.count(BETWEEN) == 1
    assert accuracy_curve([{"phase": "search", "val_top1": None}]) == ""


def test_a_search_prints_what_each_epoch_came_to(capsys):
    lines = EpochLines()
    for record in epochs_of(4):
        lines.on_record(record)
        lines.on_epoch(record["phase"], record["epoch"], 4, {})
    assert capsys.readouterr().err.splitlines()[-1] == (
        "finetune: epoch 1 of 4: loss 0.5, val_top1 98.00"
    )

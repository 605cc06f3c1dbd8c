"""A study that an earlier version wrote is read, its networks compute what they did, and it can be extended."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from commands import ofbnas
from conftest import ROOT

from ofbnas import evaluate, front, load_data, load_study, load_subnet, read_table
from ofbnas.models.subnet import Architecture
from ofbnas.study.report.history import histories
from ofbnas.study.validate import validate

BEFORE = ROOT / "tests" / "data" / "study-before-packages"
IDS = ["8ec0849fc39f", "040301031146", "e56a0851f7b6"]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BEFORE, tmp_path / "before"))


def test_its_rows_and_history_are_read_as_they_were_written(study):
    rows = read_table(study)
    assert rows["arch_id"].tolist() == IDS
    assert rows["trial"].tolist() == [0, 1, 2]
    assert front(rows)["arch_id"].tolist() == ["8ec0849fc39f", "e56a0851f7b6"]
    assert front(rows, y="top1")["arch_id"].tolist() == [
        "8ec0849fc39f",
        "e56a0851f7b6",
        "040301031146",
    ]
    assert sorted(histories(study).decisions) == [0, 1, 2] and not histories(study).epochs
    assert not validate(study).problems


def test_its_networks_have_the_same_ids_and_accuracies(study):
    images = load_data("digits", shift=1)
    for row in read_table(study).itertuples():
        described = json.loads((study / "subnets" / row.arch_id / "config.json").read_text())
        sizes = described["ofbnas"]["sizes"]
        architecture = Architecture(described["architecture"], described["model_args"], sizes)
        assert architecture.id == row.arch_id
        assert evaluate(load_subnet(study, row.arch_id), images.test).top1 == row.top1


def test_its_settings_are_read_and_it_is_finished(study):
    assert load_study(study / "study.yaml").sweep.n_trials == 3
    done = ofbnas("study", "run", study / "study.yaml", "--output", study)
    assert done.returncode == 0, done.stderr
    assert "study before is finished" in done.stderr

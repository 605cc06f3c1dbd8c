"""Merging tables: each trial once, its origin, contradictions, and the weights."""

from __future__ import annotations

import json

import pytest
from commands import ofbnas
from rows import write_row
from test_strangers import KWARGS, NAME, SIZES, make, true_row

from ofbnas.errors import InputError
from ofbnas.models.subnet import Architecture, Subnet, save
from ofbnas.study.networks import load_subnet
from ofbnas.study.validate import validate
from ofbnas.table.merge import merge
from ofbnas.table.store import read_table


def study(folder, *trials, **changes):
    sha256 = save(Subnet(Architecture(NAME, KWARGS, SIZES), make(), {}), folder / "subnets" / "a")
    for trial in trials:
        weights = {"weights": "subnets/a/model.safetensors", "weights_sha256": sha256}
        write_row(folder, true_row(trial, **weights | changes))
    return folder


def test_each_trial_is_there_once_with_where_it_came_from(tmp_path):
    one, two = study(tmp_path / "one", 0, 1), study(tmp_path / "two", 1, 2)
    merged = merge([one, two], tmp_path / "both")
    assert (merged.rows, merged.duplicates, merged.conflicts) == (3, 1, [])
    rows = read_table(tmp_path / "both")
    assert rows["trial"].tolist() == [0, 1, 2] and rows["origin"].tolist() == ["one", "one", "two"]
    again = merge([tmp_path / "both", two], tmp_path / "again")
    assert again.duplicates == 2 and read_table(tmp_path / "again")["origin"].tolist() == [
        "one",
        "one",
        "two",
    ]


def test_contradictions_are_kept_and_reported(tmp_path):
    one, two = study(tmp_path / "one", 0), study(tmp_path / "two", 0, top1=77.0)
    done = ofbnas("table", "merge", one, two, "--out", tmp_path / "both", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["conflicts"] == [f"s, trial 0: {one}, {two} differ in top1"]
    assert sorted(read_table(tmp_path / "both")["top1"]) == [50.0, 77.0]


def test_weights_come_along_and_load(tmp_path):
    one, two = study(tmp_path / "one", 0), study(tmp_path / "two", 3)
    (two / "subnets" / "a" / "model.safetensors").unlink()
    merge([one, two], tmp_path / "both")
    rows = read_table(tmp_path / "both")
    arch_id = rows["arch_id"][0]
    assert rows["weights"][0] == f"subnets/{arch_id}/model.safetensors" and rows[
        "weights"
    ].isna().tolist() == [
        False,
        True,
    ]
    assert (validate(tmp_path / "both").problems, validate(tmp_path / "both").weights) == ([], 1)
    assert load_subnet(tmp_path / "both", arch_id)


def test_nothing_is_overwritten_and_damaged_weights_are_refused(tmp_path):
    one = study(tmp_path / "one", 0)
    with pytest.raises(InputError, match="exists already"):
        merge([one], one)
    with (one / "subnets" / "a" / "model.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(InputError, match="is not the file that the row of .* recorded"):
        merge([one], tmp_path / "both")

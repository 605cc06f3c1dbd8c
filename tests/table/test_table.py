"""Tables keep types, order and unknown columns; front and hypervolume equal brute force."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import ofbnas
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import write_row

from ofbnas.errors import InputError
from ofbnas.table.front import front, hypervolume, reference_point
from ofbnas.table.history import write_history
from ofbnas.table.layout import home
from ofbnas.table.query import condition, find, to_records
from ofbnas.table.store import SCHEMA, next_trial, read_table


def row(trial: int, **values):
    return {
        "study": "s",
        "trial": trial,
        "status": "complete",
        "arch_id": f"{trial:012x}",
        "model": "vit",
        "model_kwargs": "{}",
        "gmacs": 1.0 + trial,
        "params": 10**9 + trial,
        "top1": 50.0 + trial,
        "val_top1": 40.0,
        "architecture": {"embed": [48], "blocks": [{"heads": 2, "head_size": 8, "mlp": 64}]},
        "finished_at": datetime(2026, 11, 21, tzinfo=UTC),
        "hp.search.lr": 0.5,
        **values,
    }


def test_rows_come_back_as_they_were(tmp_path):
    for trial in (3, 1, 2):
        write_row(tmp_path, row(trial))
    table = read_table(tmp_path)
    assert table["trial"].tolist() == [1, 2, 3]
    first = to_records(table)[0]
    for name, value in row(1).items():
        assert first[name] == value or name == "finished_at"
    assert table["finished_at"][0] == datetime(2026, 11, 21, tzinfo=UTC)
    assert first["latency_ms"] is None, "what was not measured is null"


def test_whole_numbers_stay_whole_beside_missing_ones(tmp_path):
    write_row(tmp_path, row(0))
    write_row(tmp_path, row(1, params=None, status="failed", reason="x", top1=None))
    table = read_table(tmp_path)
    assert table["params"].dtype == pd.Int64Dtype()
    assert to_records(table)[1]["params"] is None


def test_trials_with_other_swept_fields_share_a_table(tmp_path):
    write_row(tmp_path, row(0))
    write_row(
        tmp_path, {k: v for k, v in row(1).items() if k != "hp.search.lr"} | {"hp.other": "a"}
    )
    table = read_table(tmp_path)
    assert to_records(table)[0]["hp.other"] is None and to_records(table)[1]["hp.search.lr"] is None


def test_columns_of_a_newer_version_are_kept(tmp_path):
    file = write_row(tmp_path, row(0))
    newer = pq.read_table(file).append_column("joules", pa.array([7.0]))
    pq.write_table(newer.replace_schema_metadata({"ofbnas_schema": "9"}), file)
    assert read_table(tmp_path)["joules"].tolist() == [7.0]


def test_columns_that_do_not_exist_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match="no column acuracy"):
        write_row(tmp_path, row(0, acuracy=1))


def test_plain_pandas_reads_the_folder(tmp_path):
    write_row(tmp_path, row(0))
    assert pd.read_parquet(tmp_path / "architectures")["arch_id"].tolist() == ["0" * 12]


def test_the_schemas_version_is_in_the_file(tmp_path):
    assert pq.read_schema(write_row(tmp_path, row(0))).metadata[b"ofbnas_schema"] == b"1"


def test_half_written_files_are_not_seen(tmp_path):
    file = write_row(tmp_path, row(0))
    (file.parent / ".writing-abc").write_bytes(file.read_bytes()[:100])
    assert len(read_table(tmp_path)) == 1
    assert not list(file.parent.glob("*.tmp"))


def test_history_has_a_row_per_decision(tmp_path):
    record = {
        "epoch": 1,
        "step": 5,
        "task": 2.0,
        "axes": [{"axis": "embed", "groups": 1, "channels": 8, "options": 2}],
    }
    write_history(tmp_path, 4, [record, record | {"step": 9}], study="digits")
    history = pd.read_parquet(tmp_path / "history")
    assert history["step"].tolist() == [5, 9] and set(history["trial"]) == {4}
    assert history["axes"][0][0]["options"] == 2


def damaged(tmp_path: Path) -> dict[str, Path]:
    text, other, foreign = (tmp_path / f"{name}.parquet" for name in ("text", "other", "foreign"))
    text.write_text("no parquet")
    pd.DataFrame({"a": [1]}).to_parquet(other)
    pq.write_table(pa.table({"a": [1]}).replace_schema_metadata({"ofbnas_schema": "1"}), foreign)
    return {
        "not a Parquet file": text,
        "not an architecture table": other,
        "lacks the columns study, trial": foreign,
        "no such file or folder": tmp_path / "none",
        "holds no architecture table": tmp_path / "empty",
    }


@pytest.mark.parametrize("message", damaged(Path("/tmp")))
def test_what_is_not_a_table_is_refused(tmp_path, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=message):
        read_table(damaged(tmp_path)[message])


def test_an_architecture_is_found_by_the_beginning_of_its_id(tmp_path):
    for trial, arch_id, val in (
        (0, "aab000000000", 1.0),
        (1, "aac000000000", 2.0),
        (2, "aac000000000", 3.0),
    ):
        write_row(tmp_path, row(trial, arch_id=arch_id, val_top1=val))
    table = read_table(tmp_path)
    assert find(table, "aac")["trial"] == 2, "the better of two trials"
    for odd, message in (
        ("aa", "2 architectures"),
        ("b", "no architecture"),
        ("", "no architecture"),
    ):
        with pytest.raises(InputError, match=message):
            find(table, odd)


def test_weights_are_relative_to_the_studys_folder(tmp_path):
    file = write_row(tmp_path, row(0))
    assert home(tmp_path) == home(tmp_path / "architectures") == home(file) == tmp_path


def test_a_folder_with_one_compact_file_is_a_table_too(tmp_path):
    parts = [pq.read_table(write_row(tmp_path / "study", row(trial))) for trial in (1, 0)]
    for name in ("shared", "architectures"):
        folder = tmp_path / name
        folder.mkdir()
        pq.write_table(pa.concat_tables(parts), folder / "architectures.parquet")
        pq.write_table(pa.table({"step": [1]}), folder / "history.parquet")
        assert read_table(folder)["trial"].tolist() == [0, 1], "sorted, and without the history"
        assert home(folder) == home(folder / "architectures.parquet") == folder


def test_trial_numbers_continue(tmp_path):
    assert next_trial(tmp_path) == 0
    write_row(tmp_path, row(41))
    assert next_trial(tmp_path) == 42


points = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=12)


def frame(pairs) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "arch_id": [f"{i}" for i in range(len(pairs))],
            "gmacs": [p[0] for p in pairs],
            "top1": [p[1] for p in pairs],
        }
    ).astype({"gmacs": float, "top1": float})


@settings(max_examples=100)
@given(points)
def test_the_front_is_that_of_brute_force_in_any_order(pairs):
    expected = sorted(
        {p for p in pairs if not any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in pairs)}
    )
    for order in (pairs, pairs[::-1], pairs * 2):
        best = front(frame(order))
        assert list(zip(best["gmacs"], best["top1"], strict=True)) == expected


@settings(max_examples=100)
@given(points)
def test_the_hypervolume_is_the_area_that_is_dominated(pairs):
    cells = sum(
        any(x <= column and y > r for x, y in pairs) for column in range(10) for r in range(9)
    )
    assert hypervolume(frame(pairs), ref=(10.0, 0.0)).value == pytest.approx(cells)


def test_failed_rows_are_not_on_the_front():
    table = frame([(1, 5), (2, 6)])
    table.loc[0, "top1"] = np.nan
    assert front(table)["gmacs"].tolist() == [2]
    failed = table.iloc[:1].assign(gmacs=np.nan)
    assert front(failed).empty
    volume = hypervolume(front(failed), ref=reference_point(failed))
    assert (volume.value, volume.share) == (0.0, 0.0)


def test_columns_that_cannot_be_compared_are_refused():
    with pytest.raises(InputError, match="column seed cannot be compared.* gmacs"):
        front(frame([(1, 1)]), x="seed")


def test_the_reference_point_is_the_parent():
    table = frame([(1, 5), (2, 6)]).assign(parent_gmacs=4.0)
    assert reference_point(table) == (4.0, 0.0)
    volume = hypervolume(table, ref=reference_point(table))
    assert volume.value == pytest.approx(3 * 5 + 2 * 1) and volume.share == pytest.approx(17 / 400)


def test_a_front_over_a_measured_latency_stands_against_the_parents(tmp_path):
    for trial, latency in enumerate((3.0, 1.0, 2.0)):
        write_row(tmp_path, row(trial, latency_ms=latency, parent_latency_ms=4.0 + trial))
    table = read_table(tmp_path)
    assert front(table, x="latency_ms", y="top1")["trial"].tolist() == [1, 2]
    assert reference_point(table, x="latency_ms") == (6.0, 0.0)
    assert reference_point(table.assign(parent_latency_ms=np.nan), x="latency_ms") == (3.0, 0.0), (
        "it is not known"
    )


def test_the_schema_has_no_column_twice():
    assert len(set(SCHEMA.names)) == len(SCHEMA.names)
    assert json.dumps(SCHEMA.names)


def test_architectures_are_listed_by_conditions(tmp_path):
    for trial in range(4):
        write_row(tmp_path, row(trial, model="vit" if trial else "swin"))
    write_row(tmp_path, row(9, arch_id=None, status="failed"))

    def listed(*conditions):
        asked = [part for text in conditions for part in ("--where", text)]
        done = ofbnas("arch", "list", tmp_path, *asked, "--json")
        assert done.returncode == 0, done.stderr
        return [record["trial"] for record in json.loads(done.stdout)]

    assert listed() == [0, 1, 2, 3]
    assert listed("gmacs <= 3", "top1>50") == [1, 2]
    assert listed("model=swin") == [0] and listed("model != swin", "trial >= 3") == [3]
    text = " ".join(ofbnas("arch", "list", tmp_path, "--where", "gmacs<2").stdout.split())
    assert "2x8/64" in text and "vit" not in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gmacs", "expected a column"),
        ("size<2", "not a column that can be compared"),
        ("gmacs<a", "is a number"),
    ],
)
def test_an_invalid_condition_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        condition(text)

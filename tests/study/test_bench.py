"""Networks of a table are timed, and fronts and the report take the times as an axis."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from commands import ofbnas
from conftest import KWARGS, NAME, ROOT, make
from sharing import get

from ofbnas.errors import InputError
from ofbnas.study.bench import Benched, bench, conditions_of, of_table
from ofbnas.study.report.contents import contents
from ofbnas.table.latency import LATENCY_SCHEMA, add_latencies, with_latencies
from ofbnas.table.sharing.share import push
from ofbnas.table.store import read_table, write_table
from ofbnas.training import onnx_runtime
from ofbnas.training.onnx_runtime import to_onnx

FAST = ("--seconds", 0, "--threads", 1)


@pytest.fixture
def table(tmp_path):
    """The published table of the digits."""
    return shutil.copytree(ROOT / "studies" / "tables" / "digits", tmp_path / "digits")


def test_a_front_is_timed_and_becomes_one_over_time(table):
    on_front = json.loads(ofbnas("front", "show", table, "--json").stdout)["front"]
    ids = [row["arch_id"] for row in on_front[:2]]
    named = [word for arch_id in ids for word in ("--arch", arch_id)]
    done = ofbnas("bench", table, *named, "--batch", "1,3", *FAST, "--json")
    assert done.returncode == 0, done.stderr
    records = json.loads(done.stdout)
    assert [(r["arch_id"], r["batch_size"]) for r in records] == [
        (arch_id, batch) for batch in (1, 3) for arch_id in (None, *ids)
    ]
    assert all(0 < r["median_ms"] <= r["p90_ms"] and r["threads"] == 1 for r in records)

    file = pq.read_table(table / "latency.parquet")
    assert file.schema.names == LATENCY_SCHEMA.names and file.num_rows == 6
    assert len(read_table(table)) == len(read_table(ROOT / "studies" / "tables" / "digits"))

    ambiguous = ofbnas("front", "show", table, "--x", "latency_ms")
    assert ambiguous.returncode == 2 and "batch 1, float32; " in ambiguous.stderr
    unknown = ofbnas("front", "show", table, "--x", "latency_ms", "--measured", "batch_size=2")
    assert unknown.returncode == 2 and "there is nothing else" in unknown.stderr
    wrong = ofbnas("front", "show", table, "--x", "gmacs", "--measured", "batch_size=2")
    assert wrong.returncode == 2 and "the axis is gmacs" in wrong.stderr
    shown = ofbnas(
        "front", "show", table, "--x", "latency_ms", "--measured", "batch_size=3", "--json"
    )
    front = json.loads(shown.stdout)["front"]
    times = {r["arch_id"]: r["median_ms"] for r in records if r["batch_size"] == 3}
    assert front and all(row["latency_ms"] == pytest.approx(times[row["arch_id"]]) for row in front)
    assert front[0]["latency_device"].endswith("1 thread, batch 3, float32")

    rows = with_latencies(read_table(table), table)  # the newest, which are those of batch 3
    assert set(rows["latency_ms"].dropna()) == {times[arch_id] for arch_id in ids}
    assert set(rows["parent_latency_ms"]) == {times[None]}


def test_a_network_measured_again_has_its_newest_time(table):
    row = read_table(table).iloc[0]
    conditions = conditions_of("cpu", [1], 1, "float32", False, "torch")
    benched = [Benched(row["arch_id"], row["model"], row["model_kwargs"], make(depth=1))]
    for _ in range(2):
        records = list(bench(benched, conditions, seconds=0))
        add_latencies(table, records)
    newest = with_latencies(read_table(table), table, ["dtype=float32"])
    of_row = newest[newest["arch_id"] == row["arch_id"]]
    assert set(of_row["latency_ms"]) == {records[0]["median_ms"]}
    assert newest["parent_latency_ms"].isna().all(), "its parent was not measured"


def test_times_are_shared_with_their_table(table, tmp_path):
    row = read_table(table).iloc[0]
    conditions = conditions_of("cpu", [1], 1, "float32", False, "torch")
    benched = [Benched(row["arch_id"], row["model"], row["model_kwargs"], make(depth=1))]
    add_latencies(table, list(bench(benched, conditions, seconds=0)))
    push(str(table), str(tmp_path / "pushed"), weights="none", notify=print)
    get(tmp_path / "pushed", tmp_path / "pulled")
    pulled, here = (
        with_latencies(read_table(place), place)["latency_ms"]
        for place in (tmp_path / "pulled", table)
    )
    assert here.notna().any() and pulled.equals(here)
    assert "`latency.parquet` has latencies" in (tmp_path / "pulled" / "README.md").read_text()

    file = table / "latency.parquet"
    pd.read_parquet(file).assign(median_ms="fast").to_parquet(file)
    with pytest.raises(InputError, match="latency.parquet"):
        push(str(table), str(tmp_path / "again"), weights="none", notify=print)


def test_a_network_is_built_as_its_row_says(table):
    row = read_table(table).iloc[0]
    parent, network = of_table(table, [row["arch_id"]])
    assert parent.arch_id is None
    count = sum(parameter.numel() for parameter in network.network.parameters())
    assert count == row["params"]

    damaged = read_table(table).assign(
        architecture=[{"embed": [1], "blocks": []}] * len(read_table(table))
    )
    write_table(damaged, table / "architectures.parquet")
    with pytest.raises(InputError, match=row["arch_id"]):
        of_table(table, [row["arch_id"]])


def test_an_export_computes_what_the_model_computes_for_any_batch():
    onnxruntime = pytest.importorskip("onnxruntime")
    model = make(depth=1)
    session = onnxruntime.InferenceSession(to_onnx(model, torch.randn(1, 1, 8, 8)))
    for batch in (1, 5):
        images = torch.randn(batch, 1, 8, 8)
        (outputs,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        assert torch.allclose(torch.from_numpy(outputs), model(images), atol=1e-4)
    conditions = conditions_of("cpu", [2], 1, "float32", False, "onnx")
    (record,) = bench([Benched(None, NAME, json.dumps(KWARGS), model)], conditions, seconds=0)
    assert record["runtime"] == "onnx" and record["median_ms"] > 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["no-such-table"], "neither a table's folder or file nor a model"),
        (["vit_tiny_patch16_224", "--arch", "1a"], "--arch: vit_tiny_patch16_224 is a model"),
        (["TABLE", "--arch", "zz"], "no architecture has it"),
        (["TABLE", "--batch", "1,0"], "--batch 1,0: expected whole numbers"),
        (["TABLE", "--runtime", "onnx", "--dtype", "float16"], "on a CPU in float32"),
        pytest.param(
            ["TABLE", "--device", "cuda"],
            "torch finds no GPU",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_mistakes_are_explained(words, told, table):
    done = ofbnas("bench", *(table if word == "TABLE" else word for word in words))
    assert done.returncode == 2 and told in done.stderr
    assert not (table / "latency.parquet").exists()


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr(onnx_runtime, "NEEDED", ("torch", "not_installed"))
    done = ofbnas("bench", "vit_tiny_patch16_224", "--runtime", "onnx")
    assert done.returncode == 2
    assert "needs not_installed, " in done.stderr
    assert "pip install 'ofbnas[export]'" in done.stderr


def test_the_report_shows_the_newest_times(tmp_path):
    from made_studies import finished

    from ofbnas.config.study_file import load_study

    folder = finished(tmp_path / "study", num=3)
    rows = read_table(folder)
    record = {
        "model": rows["model"].iloc[0],
        "model_kwargs": rows["model_kwargs"].iloc[0],
        "device": "CPU",
        "threads": 1,
        "batch_size": 1,
        "dtype": "float32",
        "compiled": False,
        "runtime": "torch",
        "measured_at": pd.Timestamp.now("UTC"),
    }
    measured = [(None, 9.0), *((arch_id, 2.5) for arch_id in rows["arch_id"].dropna().unique())]
    add_latencies(
        folder, [record | {"arch_id": arch_id, "median_ms": ms} for arch_id, ms in measured]
    )
    journal = {"running": [], "importance": {}, "left_out": None}
    shown = contents(folder, load_study(folder / "study.yaml"), journal)
    assert {trial["latency_ms"] for trial in shown["trials"] if "arch_id" in trial} == {2.5}
    assert "latency_ms/top1" in shown["fronts"]

"""docs/table.md is true; other readers, older and newer tables work; shipped tables are valid."""

from __future__ import annotations

import duckdb
import pandas as pd
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from rows import write_row
from test_families import generator
from test_table import row

from ofbnas.study.networks import load_subnet
from ofbnas.study.validate import validate
from ofbnas.table import parquet
from ofbnas.table.front import front
from ofbnas.table.query import to_records
from ofbnas.table.schema import SCHEMA
from ofbnas.table.store import read_table, write_table

SHIPPED = ROOT / "studies" / "tables"


def test_the_page_of_the_table_lists_the_schemas_columns():
    text = (ROOT / "docs" / "table.md").read_text()
    assert generator().table_page(text) == text, "run python tools/generate.py"
    assert all(f"| `{name}` |" in text for name in SCHEMA.names)


def test_columns_carry_their_meaning_in_the_file(tmp_path):
    field = pq.read_schema(write_row(tmp_path, row(0))).field("gmacs")
    assert field.metadata[b"unit"] == b"10^9" and b"one image" in field.metadata[b"meaning"]


@pytest.fixture
def folder(tmp_path):
    for trial in range(3):
        write_row(tmp_path, row(trial))
    return tmp_path / "architectures"


def test_pandas_polars_and_duckdb_read_the_same(folder):
    ours = read_table(folder)
    expected = list(zip(ours["arch_id"], ours["gmacs"], ours["hp.search.lr"], strict=True))
    plain = pd.read_parquet(folder).sort_values("trial")
    assert (
        list(zip(plain["arch_id"], plain["gmacs"], plain["hp.search.lr"], strict=True)) == expected
    )
    assert plain["architecture"].iloc[0]["blocks"][0]["heads"] == 2
    frame = polars.read_parquet(folder / "*.parquet").sort("trial")
    assert frame.select("arch_id", "gmacs", "hp.search.lr").rows() == expected
    assert frame["architecture"][0]["blocks"][0]["heads"] == 2
    found = duckdb.sql(
        f"select arch_id, gmacs, \"hp.search.lr\" from '{folder}/*.parquet' order by trial"
    ).fetchall()
    assert found == expected


def test_one_file_has_what_the_folder_has(folder, tmp_path):
    file = write_table(read_table(folder), tmp_path / "one.parquet")
    assert to_records(read_table(file)) == to_records(read_table(folder))
    chunk = pq.ParquetFile(file).metadata.row_group(0).column(0)
    assert chunk.compression == "ZSTD" and "RLE_DICTIONARY" in chunk.encodings


def test_an_older_table_lacks_columns_which_are_null(folder, tmp_path):
    older = pq.read_table(folder).drop_columns(["top5", "latency_ms", "hp.search.lr"])
    pq.write_table(
        older.replace_schema_metadata({"ofbnas_schema": "1"}), tmp_path / "older.parquet"
    )
    rows = read_table(tmp_path / "older.parquet")
    assert rows["top5"].isna().all() and len(front(rows, y="top1")) == 3
    assert read_table(tmp_path / "older.parquet", where=[("latency_ms", "<", 5)]).empty


def test_a_newer_table_keeps_its_columns_through_a_rewrite(folder, tmp_path):
    newer = pq.read_table(folder).append_column("joules", pa.array([7.0, None, 9.0]))
    pq.write_table(
        newer.replace_schema_metadata({"ofbnas_schema": "2"}), tmp_path / "newer.parquet"
    )
    rows = read_table(tmp_path / "newer.parquet")
    again = read_table(write_table(rows, tmp_path / "again.parquet"))
    assert again["joules"].fillna(0).tolist() == [7.0, 0, 9.0]


def test_only_what_is_asked_for_is_read(folder, monkeypatch):
    asked = []
    real = parquet.pq.ParquetFile.iter_batches

    def iter_batches(*args, **kwargs):
        asked.append(kwargs["columns"])
        return real(*args, **kwargs)

    monkeypatch.setattr(parquet.pq.ParquetFile, "iter_batches", iter_batches)
    rows = read_table(folder, columns=["arch_id", "gmacs"], where=[("gmacs", ">", 1.5)])
    assert list(rows.columns) == ["arch_id", "gmacs"] and rows["gmacs"].tolist() == [2.0, 3.0]
    assert len(asked) == 3
    assert all(set(columns) == {"arch_id", "gmacs", "trial"} for columns in asked)


def test_the_published_table_is_what_its_page_makes():
    generated = generator("published").rows()
    shipped = read_table(SHIPPED / "published.parquet")
    assert to_records(shipped[list(generated)]) == to_records(
        generated.astype(shipped[list(generated)].dtypes)
    )
    assert validate(SHIPPED / "published.parquet").problems == []
    assert shipped["source"].notna().all() and {"OFB", "ViT-Slim", "SAViT", "AutoFormer"} <= set(
        shipped["study"]
    )


@pytest.mark.parametrize("name", ["digits", "fashion_mnist"])
def test_a_shipped_table_is_true_and_its_front_loads(name):
    checked = validate(SHIPPED / name)
    rows = read_table(SHIPPED / name)
    best = front(rows)
    assert checked.problems == [] and checked.weights >= len(best) >= 1
    for arch_id in best["arch_id"]:
        model = load_subnet(SHIPPED / name, arch_id)
        assert (
            sum(p.numel() for p in model.parameters())
            == best.set_index("arch_id")["params"][arch_id]
        )

"""What a push uploads of a table."""

from __future__ import annotations

import shutil
import sys

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import NAME
from huggingface_hub import DatasetCard
from rows import write_row
from sharing import best, contents, get, same_outputs

from ofbnas.errors import InputError
from ofbnas.study.networks import load_subnet
from ofbnas.table.history import read_history
from ofbnas.table.layout import home
from ofbnas.table.sharing.manifest import entry_of, parse
from ofbnas.table.sharing.share import push
from ofbnas.table.store import read_table


def test_a_pulled_table_is_the_one_that_was_pushed(small_study, shared, tmp_path):
    moved = get(shared, tmp_path / "got")
    assert contents(tmp_path / "got") == contents(shared)
    assert moved.files == moved.moved_files == len(contents(shared))
    pd.testing.assert_frame_equal(read_table(tmp_path / "got"), read_table(small_study))
    pd.testing.assert_frame_equal(
        read_table(tmp_path / "got" / "architectures.parquet"), read_table(small_study)
    )
    assert len(best(small_study)) == 3
    for arch_id in best(small_study):
        assert same_outputs(tmp_path / "got", small_study, arch_id)
        assert same_outputs(tmp_path / "got" / "architectures.parquet", small_study, arch_id)


def test_plain_pandas_reads_what_is_shared(shared, small_study):
    table = pd.read_parquet(shared / "architectures.parquet")
    assert (
        table["arch_id"].dropna().tolist() == read_table(small_study)["arch_id"].dropna().tolist()
    )
    assert pd.read_parquet(shared / "history.parquet")["step"].tolist() == [1, 2] * 4


def test_the_table_is_one_compact_file(shared):
    file = pq.ParquetFile(shared / "architectures.parquet")
    column = file.metadata.row_group(0).column(0)
    assert (
        file.metadata.num_row_groups == 1
        and column.compression == "ZSTD"
        and "DICTIONARY" in str(column.encodings)
    )
    assert file.schema_arrow.metadata[b"ofbnas_schema"] == b"1"
    assert not file.schema_arrow.field("trial").nullable


def test_a_newer_versions_columns_and_number_travel(small_study, tmp_path):
    old = shutil.copytree(small_study, tmp_path / "old")
    file = old / "architectures" / "trial-00002.parquet"
    newer = pq.read_table(file).append_column("joules", pa.array([7.0]))
    pq.write_table(newer.replace_schema_metadata({"ofbnas_schema": "9"}), file)
    push(str(old), str(tmp_path / "out"), notify=print)
    found = pq.read_table(tmp_path / "out" / "architectures.parquet")
    assert found.schema.metadata[b"ofbnas_schema"] == b"9"
    assert found["joules"].to_pylist() == [None, None, 7.0, None, None]


@pytest.mark.parametrize(("weights", "number"), [("all", 4), ("front", 3), ("none", 0)])
def test_the_weights_that_were_asked_for_travel(small_study, tmp_path, weights, number):
    push(str(small_study), str(tmp_path / "out"), weights=weights, notify=print)
    assert len(list((tmp_path / "out").glob("subnets/*/model.safetensors"))) == number
    assert read_table(tmp_path / "out")["weights_sha256"].notna().sum() == 4, (
        "hashes stay, also of what stays behind"
    )
    left = read_table(small_study)["arch_id"][2]
    if weights == "all":
        assert same_outputs(small_study, tmp_path / "out", left)
    else:
        with pytest.raises(InputError, match=f"the weights of {left} are not here"):
            load_subnet(tmp_path / "out", left)


def test_ids_of_the_front_load_where_a_trial_found_the_same_twice(small_study, tmp_path):
    """The front takes the best row on the test images, load_subnet the best on the validation images."""
    folder = shutil.copytree(small_study, tmp_path / "twice")
    row = read_table(folder).iloc[3]
    shutil.copytree(
        folder / "subnets" / row["arch_id"], folder / "subnets" / f"{row['arch_id']}-trial-7"
    )
    again = {
        name: row[name]
        for name in ("arch_id", "study", "status", "model", "model_kwargs", "weights_sha256")
    }
    again |= {"trial": 7, "gmacs": 3.2, "top1": 80.0, "val_top1": 99.0}
    write_row(folder, again | {"weights": f"subnets/{row['arch_id']}-trial-7/model.safetensors"})
    push(str(folder), str(tmp_path / "out"), notify=print)
    assert same_outputs(small_study, tmp_path / "out", row["arch_id"])


def test_the_manifest_has_every_file(shared):
    manifest = parse((shared / "manifest.json").read_bytes(), "")
    assert manifest.weights == "front"
    assert {entry.path for entry in manifest.files} == set(contents(shared)) - {"manifest.json"}
    assert all(entry == entry_of(shared / entry.path, entry.path) for entry in manifest.files)


def test_the_card_is_one_of_a_data_set(shared):
    card = DatasetCard.load(shared / "README.md")
    assert [config["data_files"] for config in card.data.configs] == [
        "architectures.parquet",
        "history.parquet",
    ]
    assert card.data.size_categories == ["n<1K"] and "ofbnas" in card.data.tags
    assert (
        "![The Pareto front](front.png)" in card.text
        and (shared / "front.png").read_bytes()[:4] == b"\x89PNG"
    )
    assert (
        card.text.count("[shared](subnets/") == 3
        and f'load_subnet("FOLDER", "{best(shared)[0]}")' in card.text
    )


def test_without_matplotlib_the_picture_is_left_out_with_a_message(
    small_study, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    lines: list[str] = []
    push(str(small_study), str(tmp_path / "out"), notify=lines.append)
    assert [
        line for line in lines if "without a picture" in line and "pip install matplotlib" in line
    ]
    assert not (tmp_path / "out" / "front.png").exists()
    assert "front.png" not in (tmp_path / "out" / "README.md").read_text()


def test_files_at_the_target_are_not_sent_again(small_study, tmp_path):
    address = (tmp_path / "out").as_uri()
    first = push(str(small_study), address, notify=print)
    assert (
        first.moved_files == first.files
        and push(str(small_study), address, notify=print).moved_files == 0
    )
    file = next((tmp_path / "out").glob("subnets/*/model.safetensors"))
    file.write_bytes(bytes(file.stat().st_size))
    assert push(str(small_study), address, notify=print).moved_files == 1
    assert get(address, tmp_path / "got").moved_files == first.files
    file = next((tmp_path / "got").glob("subnets/*/model.safetensors"))
    file.write_bytes(bytes(file.stat().st_size))
    assert (
        get(address, tmp_path / "got").moved_files == 1
        and get(address, tmp_path / "got").moved_files == 0
    )


def test_a_pulled_table_can_be_shared_on_and_from_its_file(shared, tmp_path):
    for index, source in enumerate((shared, shared / "architectures.parquet")):
        push(str(source), str(tmp_path / str(index)), notify=print)
        assert contents(tmp_path / str(index)) == contents(shared)
    with pytest.raises(InputError, match="are not here .* share it with --weights front or none"):
        push(str(shared), str(tmp_path / "all"), weights="all", notify=print)


def test_a_later_state_replaces_an_earlier_one(small_study, tmp_path):
    folder = shutil.copytree(small_study, tmp_path / "study")
    push(str(folder), str(tmp_path / "out"), notify=print)
    get(tmp_path / "out", tmp_path / "got")
    write_row(
        folder,
        {"study": "small", "trial": 10, "status": "failed", "model": NAME, "model_kwargs": "{}"},
    )
    push(str(folder), str(tmp_path / "out"), notify=print)
    assert get(tmp_path / "out", tmp_path / "got").moved_files == 3, "table, card, manifest"
    assert len(read_table(tmp_path / "got")) == 6


def test_weights_that_are_not_those_recorded_are_not_shared(small_study, tmp_path):
    folder = shutil.copytree(small_study, tmp_path / "study")
    file = folder / read_table(folder)["weights"][0]
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(InputError, match="not the one recorded"):
        push(str(folder), str(tmp_path / "out"), notify=print)
    file.unlink()
    with pytest.raises(InputError, match="are not here"):
        push(str(folder), str(tmp_path / "out"), notify=print)
    assert not (tmp_path / "out").exists()


def test_a_strangers_row_does_not_share_what_lies_elsewhere(small_study, tmp_path):
    folder = shutil.copytree(small_study, tmp_path / "study")
    shutil.copytree(next((small_study / "subnets").iterdir()), tmp_path / "private")
    row = {
        "arch_id": "a" * 12,
        "study": "s",
        "trial": 11,
        "status": "complete",
        "model": NAME,
        "model_kwargs": "{}",
    }
    for path in ("../private/model.safetensors", "subnets/link/model.safetensors"):
        write_row(folder, row | {"gmacs": 0.01, "top1": 99.0, "weights": path})
        if "link" in path:
            (folder / "subnets" / "link").symlink_to(tmp_path / "private")
        with pytest.raises(
            InputError, match="is not a path within its folder|leads through a link"
        ):
            push(str(folder), str(tmp_path / "out"), notify=print)


@pytest.mark.parametrize("kind", ["study", "other", "file"])
def test_folders_that_hold_something_else_are_left_alone(small_study, shared, tmp_path, kind):
    target = tmp_path / "target"
    if kind == "study":
        shutil.copytree(small_study, target)
    elif kind == "other":
        target.mkdir()
        (target / "README.md").write_text("mine")
    else:
        target.write_text("mine")
    before = contents(tmp_path)
    for send in (
        lambda: push(str(small_study), str(target), notify=print),
        lambda: get(shared, target),
    ):
        with pytest.raises(
            InputError, match="is a study's folder|holds other files|is a file; expected a folder"
        ):
            send()
    assert contents(tmp_path) == before


def test_tables_are_found_in_a_folder_of_any_name(shared, tmp_path):
    for name in ("architectures", "history"):
        get(shared, tmp_path / name)
        assert (
            home(tmp_path / name)
            == home(tmp_path / name / "architectures.parquet")
            == tmp_path / name
        )
        assert len(read_table(tmp_path / name)) == 5
        assert load_subnet(tmp_path / name, best(shared)[0])


def test_an_empty_table_is_not_shared(tmp_path):
    (tmp_path / "study.yaml").write_text("name: x")
    with pytest.raises(InputError, match="no rows yet"):
        push(str(tmp_path), str(tmp_path / "out"), notify=print)


def test_histories_are_read_from_a_study_and_from_a_shared_table(small_study, shared, tmp_path):
    history = read_history(small_study)
    assert history[["trial", "step"]].to_numpy().tolist() == [
        [trial, step] for trial in range(4) for step in (1, 2)
    ]
    pd.testing.assert_frame_equal(read_history(shared), history)
    shutil.copytree(shared, tmp_path / "without")
    (tmp_path / "without" / "history.parquet").unlink()
    with pytest.raises(InputError, match="holds no histories; expected a study's folder"):
        read_history(tmp_path / "without")
    with pytest.raises(InputError, match="no such file or folder"):
        read_history(tmp_path / "nothing")

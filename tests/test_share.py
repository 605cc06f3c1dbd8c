"""What is shared of a table, and what is believed of a table that somebody else shared."""

from __future__ import annotations

import json
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import KWARGS, NAME, make
from huggingface_hub import DatasetCard

from ofbnas.axes import axes
from ofbnas.errors import InputError, TransferError
from ofbnas.front import front
from ofbnas.manifest import MAX_BYTES, MAX_FILES, check_names, entry_of, parse
from ofbnas.share import pull, push
from ofbnas.subnet import Architecture, Subnet, load_subnet, save
from ofbnas.table import home, read_table, write_history, write_row
from ofbnas.transfer import LOCK, Folder

TOP1 = {8: 50.0, 16: 70.0, 24: 60.0, 32: 90.0}  # by width; the one of 24 is not on the front


def write_study(folder: Path) -> Path:
    """A study's folder with four networks and a failed trial."""
    for trial, (width, top1) in enumerate(TOP1.items()):
        model = make(embed_dim=width)
        sizes = {axis.name: axis.size for axis in axes(model, {})}
        subnet = Subnet(Architecture(NAME, KWARGS | {"embed_dim": width}, sizes), model)
        arch_id = subnet.architecture.id
        row = {"arch_id": arch_id, "study": "small", "trial": trial, "status": "complete", "model": NAME}
        row |= {"model_kwargs": "{}", "gmacs": width / 10, "params": width * 100, "top1": top1, "val_top1": top1}
        row |= {"architecture": {"embed": [width], "blocks": [{"heads": 4, "head_size": width // 4, "mlp": 64}]}}
        row |= {"finished_at": datetime(2026, 11, 21, tzinfo=UTC), "hp.search.lr": 0.1 * trial, "dataset": "digits"}
        row |= {"weights": f"subnets/{arch_id}/model.safetensors"}
        row |= {"weights_sha256": save(subnet, folder / "subnets" / arch_id, card="# card\n")}
        write_row(folder, row)
        write_history(folder, trial, [{"epoch": 0, "step": step, "task": 2.0} for step in (1, 2)])
    failed = {"study": "small", "trial": 9, "status": "failed", "reason": "x", "model": NAME, "model_kwargs": "{}"}
    write_row(folder, failed)
    return folder


@pytest.fixture(scope="session")
def study(tmp_path_factory) -> Path:
    return write_study(tmp_path_factory.mktemp("study") / "small")


@pytest.fixture(scope="session")
def shared(study, tmp_path_factory) -> Path:
    """The study's table as it is shared."""
    folder = tmp_path_factory.mktemp("shared") / "table"
    push(str(study), str(folder), tell=print)
    return folder


@pytest.fixture
def copy(shared, tmp_path) -> Path:
    """A copy of the shared table, to be damaged."""
    return Path(shutil.copytree(shared, tmp_path / "copy"))


def get(source, folder, max_size=10**9):
    return pull(str(source), folder, max_size=max_size, tell=print)


def contents(folder: Path) -> dict[str, bytes]:
    places = (place for place in folder.rglob("*") if place.is_file() and place.name != LOCK)
    return {place.relative_to(folder).as_posix(): place.read_bytes() for place in places}


def best(folder: Path) -> list[str]:
    return front(read_table(folder))["arch_id"].tolist()


def same_outputs(one: Path, other: Path, arch_id: str) -> bool:
    images = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return torch.equal(load_subnet(one, arch_id)(images), load_subnet(other, arch_id)(images))


def test_a_pulled_table_is_the_one_that_was_pushed(study, shared, tmp_path):
    moved = get(shared, tmp_path / "got")
    assert contents(tmp_path / "got") == contents(shared)
    assert moved.files == moved.moved_files == len(contents(shared))
    pd.testing.assert_frame_equal(read_table(tmp_path / "got"), read_table(study))
    pd.testing.assert_frame_equal(read_table(tmp_path / "got" / "architectures.parquet"), read_table(study))
    assert len(best(study)) == 3
    for arch_id in best(study):
        assert same_outputs(tmp_path / "got", study, arch_id)
        assert same_outputs(tmp_path / "got" / "architectures.parquet", study, arch_id)


def test_plain_pandas_reads_what_is_shared(shared, study):
    table = pd.read_parquet(shared / "architectures.parquet")
    assert table["arch_id"].dropna().tolist() == read_table(study)["arch_id"].dropna().tolist()
    assert pd.read_parquet(shared / "history.parquet")["step"].tolist() == [1, 2] * 4


def test_the_table_is_one_compact_file(shared):
    file = pq.ParquetFile(shared / "architectures.parquet")
    column = file.metadata.row_group(0).column(0)
    assert file.metadata.num_row_groups == 1 and column.compression == "ZSTD" and "DICTIONARY" in str(column.encodings)
    assert file.schema_arrow.metadata[b"ofbnas_schema"] == b"1"
    assert not file.schema_arrow.field("trial").nullable


def test_a_newer_versions_columns_and_number_travel(study, tmp_path):
    old = shutil.copytree(study, tmp_path / "old")
    file = old / "architectures" / "trial-00002.parquet"
    newer = pq.read_table(file).append_column("joules", pa.array([7.0]))
    pq.write_table(newer.replace_schema_metadata({"ofbnas_schema": "9"}), file)
    push(str(old), str(tmp_path / "out"), tell=print)
    found = pq.read_table(tmp_path / "out" / "architectures.parquet")
    assert found.schema.metadata[b"ofbnas_schema"] == b"9"
    assert found["joules"].to_pylist() == [None, None, 7.0, None, None]


@pytest.mark.parametrize(("weights", "number"), [("all", 4), ("front", 3), ("none", 0)])
def test_the_weights_that_were_asked_for_travel(study, tmp_path, weights, number):
    push(str(study), str(tmp_path / "out"), weights=weights, tell=print)
    assert len(list((tmp_path / "out").glob("subnets/*/model.safetensors"))) == number
    assert read_table(tmp_path / "out")["weights_sha256"].notna().sum() == 4, "hashes stay, also of what stays behind"
    left = read_table(study)["arch_id"][2]
    if weights == "all":
        assert same_outputs(study, tmp_path / "out", left)
    else:
        with pytest.raises(InputError, match=f"the weights of {left} are not here"):
            load_subnet(tmp_path / "out", left)


def test_ids_of_the_front_load_where_a_trial_found_the_same_twice(study, tmp_path):
    """The front takes the row that is best on the test images, load_subnet that on the validation images."""
    folder = shutil.copytree(study, tmp_path / "twice")
    row = read_table(folder).iloc[3]
    shutil.copytree(folder / "subnets" / row["arch_id"], folder / "subnets" / f"{row['arch_id']}-trial-7")
    again = {name: row[name] for name in ("arch_id", "study", "status", "model", "model_kwargs", "weights_sha256")}
    again |= {"trial": 7, "gmacs": 3.2, "top1": 80.0, "val_top1": 99.0}
    write_row(folder, again | {"weights": f"subnets/{row['arch_id']}-trial-7/model.safetensors"})
    push(str(folder), str(tmp_path / "out"), tell=print)
    assert same_outputs(study, tmp_path / "out", row["arch_id"])


def test_the_manifest_has_every_file(shared):
    manifest = parse((shared / "manifest.json").read_bytes(), "")
    assert manifest.weights == "front"
    assert {entry.path for entry in manifest.files} == set(contents(shared)) - {"manifest.json"}
    assert all(entry == entry_of(shared / entry.path, entry.path) for entry in manifest.files)


def test_the_card_is_one_of_a_data_set(shared):
    card = DatasetCard.load(shared / "README.md")
    assert [config["data_files"] for config in card.data.configs] == ["architectures.parquet", "history.parquet"]
    assert card.data.size_categories == ["n<1K"] and "ofbnas" in card.data.tags
    assert "![The Pareto front](front.png)" in card.text and (shared / "front.png").read_bytes()[:4] == b"\x89PNG"
    assert card.text.count("[shared](subnets/") == 3 and f'load_subnet("FOLDER", "{best(shared)[0]}")' in card.text


def test_without_matplotlib_the_picture_is_left_out_and_that_is_told(study, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    lines: list[str] = []
    push(str(study), str(tmp_path / "out"), tell=lines.append)
    assert [line for line in lines if "without a picture" in line and "ofbnas[plot]" in line]
    assert not (tmp_path / "out" / "front.png").exists()
    assert "front.png" not in (tmp_path / "out" / "README.md").read_text()


def test_what_is_there_is_not_sent_again(study, tmp_path):
    address = (tmp_path / "out").as_uri()
    first = push(str(study), address, tell=print)
    assert first.moved_files == first.files and push(str(study), address, tell=print).moved_files == 0
    file = next((tmp_path / "out").glob("subnets/*/model.safetensors"))
    file.write_bytes(bytes(file.stat().st_size))
    assert push(str(study), address, tell=print).moved_files == 1
    assert get(address, tmp_path / "got").moved_files == first.files
    file = next((tmp_path / "got").glob("subnets/*/model.safetensors"))
    file.write_bytes(bytes(file.stat().st_size))
    assert get(address, tmp_path / "got").moved_files == 1 and get(address, tmp_path / "got").moved_files == 0


def test_a_pulled_table_can_be_shared_on_and_from_its_file(shared, tmp_path):
    for index, source in enumerate((shared, shared / "architectures.parquet")):
        push(str(source), str(tmp_path / str(index)), tell=print)
        assert contents(tmp_path / str(index)) == contents(shared)
    with pytest.raises(InputError, match="are not here .* share it with --weights front or none"):
        push(str(shared), str(tmp_path / "all"), weights="all", tell=print)


def test_a_later_state_replaces_an_earlier_one(study, tmp_path):
    folder = shutil.copytree(study, tmp_path / "study")
    push(str(folder), str(tmp_path / "out"), tell=print)
    get(tmp_path / "out", tmp_path / "got")
    write_row(folder, {"study": "small", "trial": 10, "status": "failed", "model": NAME, "model_kwargs": "{}"})
    push(str(folder), str(tmp_path / "out"), tell=print)
    assert get(tmp_path / "out", tmp_path / "got").moved_files == 3, "table, card, manifest"
    assert len(read_table(tmp_path / "got")) == 6


def test_weights_that_are_not_those_recorded_are_not_shared(study, tmp_path):
    folder = shutil.copytree(study, tmp_path / "study")
    file = folder / read_table(folder)["weights"][0]
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(InputError, match="not the one recorded"):
        push(str(folder), str(tmp_path / "out"), tell=print)
    file.unlink()
    with pytest.raises(InputError, match="are not here"):
        push(str(folder), str(tmp_path / "out"), tell=print)
    assert not (tmp_path / "out").exists()


def test_a_strangers_row_does_not_share_what_lies_elsewhere(study, tmp_path):
    folder = shutil.copytree(study, tmp_path / "study")
    shutil.copytree(next((study / "subnets").iterdir()), tmp_path / "private")
    row = {"arch_id": "a" * 12, "study": "s", "trial": 11, "status": "complete", "model": NAME, "model_kwargs": "{}"}
    for path in ("../private/model.safetensors", "subnets/link/model.safetensors"):
        write_row(folder, row | {"gmacs": 0.01, "top1": 99.0, "weights": path})
        if "link" in path:
            (folder / "subnets" / "link").symlink_to(tmp_path / "private")
        with pytest.raises(InputError, match="lie outside its folder"):
            push(str(folder), str(tmp_path / "out"), tell=print)


@pytest.mark.parametrize("kind", ["study", "other", "file"])
def test_folders_that_hold_something_else_are_left_alone(study, shared, tmp_path, kind):
    target = tmp_path / "target"
    if kind == "study":
        shutil.copytree(study, target)
    elif kind == "other":
        target.mkdir()
        (target / "README.md").write_text("mine")
    else:
        target.write_text("mine")
    before = contents(tmp_path)
    for send in (lambda: push(str(study), str(target), tell=print), lambda: get(shared, target)):
        with pytest.raises(InputError, match="is a study's folder|holds other files|is a file; expected a folder"):
            send()
    assert contents(tmp_path) == before


def test_tables_are_found_in_a_folder_of_any_name(shared, tmp_path):
    for name in ("architectures", "history"):
        get(shared, tmp_path / name)
        assert home(tmp_path / name) == home(tmp_path / name / "architectures.parquet") == tmp_path / name
        assert len(read_table(tmp_path / name)) == 5
        assert load_subnet(tmp_path / name, best(shared)[0])


def test_an_empty_table_is_not_shared(tmp_path):
    (tmp_path / "study.yaml").write_text("name: x")
    with pytest.raises(InputError, match="no rows yet"):
        push(str(tmp_path), str(tmp_path / "out"), tell=print)


ENTRY = {"path": "architectures.parquet", "size": 1, "sha256": "0" * 64}


def manifest(*files, **changes) -> bytes:
    return json.dumps({"format": 1, "ofbnas": "1", "weights": "none", "files": [ENTRY, *files], **changes}).encode()


HOSTILE_NAMES = [
    "../x/model.safetensors", "subnets/../../model.safetensors", "/etc/config.json", "subnets//config.json",
    "subnets/./config.json", "C:/config.json", "subnets\\a\\config.json", "a:b/config.json", ".git/config.json",
    "subnets/.hidden/config.json", "subnets/a/run.sh", "study.yaml", ".transfer.lock", "manifest.json", "subnets/a",
    "con fig/config.json", "a\x00/config.json", "a\n/config.json", "\u202e/config.json", "a./config.json",
    "/".join(["a"] * 9) + "/config.json", "a" * 200 + "/config.json", "subnets/a/config.json/",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_names_that_no_shared_table_has_are_refused(name):
    with pytest.raises(InputError, match="is no name of a file in a shared table"):
        parse(manifest(ENTRY | {"path": name}), "there")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (manifest(ENTRY), "names architectures.parquet twice"),
        (manifest(*[ENTRY | {"path": f"{a}/config.json"} for a in ("sub", "SUB")]), "names SUB/config.json twice"),
        (
            manifest(*[ENTRY | {"path": f"a/config.json{b}"} for b in ("", "/config.json")]),
            "a/config.json as a file and as a folder",
        ),
        (manifest(files=[ENTRY | {"path": "README.md"}]), "names no architectures.parquet"),
        (manifest(ENTRY | {"size": -1}), "files.1.size"),
        (manifest(ENTRY | {"size": 1.5}), "files.1.size"),
        (manifest(ENTRY | {"size": True}), "files.1.size"),
        (manifest(ENTRY | {"size": "1"}), "files.1.size"),
        (manifest(ENTRY | {"size": 10**30}), "files.1.size"),
        (manifest(ENTRY | {"sha256": "0" * 63}), "files.1.sha256"),
        (manifest(ENTRY | {"sha256": "0" * 64 + "\n"}), "files.1.sha256"),
        (manifest({"path": "README.md"}), "files.1.size"),
        (manifest(files={}), "files: "),
        (manifest(files=[ENTRY] * (MAX_FILES + 1)), "at most 50000"),
        (manifest(format=2), "upgrade ofbnas"),
        (manifest(format=2, files="of another form"), "upgrade ofbnas"),
        (b"{", "no manifest"),
        (b"", "no manifest"),
        (b"\xff\xfe", "no manifest"),
        (b"[" * 10**6, "no manifest"),
        (b"null", "no manifest"),
        (b" " * (MAX_BYTES + 1), "more than"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_manifests_that_lie_are_refused_in_a_line(raw, message):
    with pytest.raises(InputError, match=message) as error:
        parse(raw, "there")
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize("name", ["subnets/0123456789ab-trial-3/model.safetensors", "a/b_c/d.e/README.md", "front.png"])
def test_names_of_shared_tables_are_believed(name):
    check_names(["architectures.parquet", name], "")


def rewrite(folder: Path, change) -> None:
    held = json.loads((folder / "manifest.json").read_text())
    change(held)
    (folder / "manifest.json").write_text(json.dumps(held))


def hostile(held, path="../evil/model.safetensors"):
    held["files"].append(ENTRY | {"path": path})


def test_a_refused_manifest_leaves_nothing(copy, tmp_path):
    rewrite(copy, hostile)
    with pytest.raises(InputError, match="no name of a file"):
        get(copy, tmp_path / "got")
    assert not (tmp_path / "got").exists() and not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data + b"x", "has more bytes, the manifest says"),
        (lambda data: data[:-1], r"bytes, the manifest says"),
        (lambda data: b"x" + data[1:], "damaged or not the one that was shared"),
        (None, "is in the manifest but not there"),
    ],
)
def test_files_that_are_not_those_of_the_manifest_get_no_name(copy, tmp_path, damage, message):
    file = copy / "architectures.parquet"
    data = file.read_bytes()
    file.unlink() if damage is None else file.write_bytes(damage(data))
    with pytest.raises(TransferError, match=message):
        get(copy, tmp_path / "got")
    left = contents(tmp_path / "got")
    assert "architectures.parquet" not in left and "manifest.json" not in left, "what follows was not fetched"
    assert all(left[path] == contents(copy)[path] for path in left), "what came before is whole"
    file.write_bytes(data)
    assert get(copy, tmp_path / "got").moved_files == len(contents(copy)) - len(left)


@pytest.mark.parametrize("link", ["subnets", "architectures.parquet", "manifest.json"])
@pytest.mark.parametrize("writes", ["pull", "push"])
def test_links_in_the_target_are_not_followed(study, shared, tmp_path, link, writes):
    target, outside = tmp_path / "target", tmp_path / "outside"
    target.mkdir()
    (target / LOCK).touch()
    outside.mkdir() if link == "subnets" else outside.write_text("mine")
    (target / link).symlink_to(outside)
    with pytest.raises(InputError, match="is a link"):
        get(shared, target) if writes == "pull" else push(str(study), str(target), tell=print)
    assert not list(outside.iterdir()) if link == "subnets" else outside.read_text() == "mine"


def test_more_than_is_allowed_is_refused_before_anything_is_fetched(shared, copy, tmp_path):
    size = sum(entry.size for entry in parse((shared / "manifest.json").read_bytes(), "").files)
    with pytest.raises(InputError, match="--max-size 1 allows it"):
        get(shared, tmp_path / "got", max_size=size - 1)
    assert not (tmp_path / "got").exists()
    assert get(shared, tmp_path / "got", max_size=size).files
    rewrite(copy, lambda held: held["files"][0].update(size=2**50))
    with pytest.raises(InputError, match=r"more than the 1 GB allowed; --max-size 1125900 allows it"):
        get(copy, tmp_path / "other")


def test_what_does_not_fit_on_the_disk_is_not_begun(copy, tmp_path):
    rewrite(copy, lambda held: held["files"][0].update(size=2**50))
    with pytest.raises(TransferError, match=r"needs 1.13e\+03 TB, the disk has .* left"):
        get(copy, tmp_path / "got", max_size=2**60)
    assert not contents(tmp_path / "got")


def test_two_transfers_do_not_write_into_one_folder(shared, tmp_path):
    folder = Folder(tmp_path / "got")
    with folder.held(), pytest.raises(InputError, match="another transfer is writing"):
        get(shared, tmp_path / "got")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("http://example.org/table", "plain http is read from this machine only"),
        ("http://127.0.0.1.example.org/table", "plain http is read from this machine only"),
        ("https://user:secret@example.org/table", "expected https://HOST/FOLDER"),
        ("https://example.org/table?key=1", "expected https://HOST/FOLDER"),
        ("ftp://example.org/table", "expected a folder, file:///"),
        ("file://elsewhere/table", "whole path of a folder on this machine"),
        ("s3://", "expected s3://BUCKET/PREFIX"),
        ("hf://models/owner/name", "expected hf://datasets/OWNER/NAME"),
        ("hf://datasets/name", "expected hf://datasets/OWNER/NAME"),
        ("none", "holds no manifest.json"),
    ],
)
def test_addresses_that_name_no_place_are_refused(tmp_path, source, message):
    with pytest.raises(InputError, match=message):
        get(source, tmp_path / "got")
    assert not (tmp_path / "got").exists()


def test_the_web_cannot_be_written(study):
    with pytest.raises(InputError, match="can only be read"):
        push(str(study), "https://example.org/table", tell=print)


@pytest.mark.parametrize(
    ("module", "address", "extra"),
    [("s3fs", "s3://bucket/x", "s3"), ("huggingface_hub", "hf://datasets/owner/name", "hf")],
)
def test_a_missing_extra_is_named(study, tmp_path, monkeypatch, module, address, extra):
    monkeypatch.setitem(sys.modules, module, None)
    for send in (lambda: push(str(study), address, tell=print), lambda: get(address, tmp_path / "got")):
        with pytest.raises(InputError, match=rf"pip install 'ofbnas\[{extra}\]'"):
            send()

"""What is accepted of a table that someone else has shared."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from sharing import contents, get

from ofbnas.errors import InputError, TransferError
from ofbnas.table.sharing.folder import LOCK, Folder
from ofbnas.table.sharing.manifest import MAX_BYTES, MAX_FILES, check_names, parse
from ofbnas.table.sharing.share import push

ENTRY = {"path": "architectures.parquet", "size": 1, "sha256": "0" * 64}


def manifest(*files, **changes) -> bytes:
    return json.dumps(
        {"format": 1, "ofbnas": "1", "weights": "none", "files": [ENTRY, *files], **changes}
    ).encode()


HOSTILE_NAMES = [
    "../x/model.safetensors", "subnets/../../model.safetensors", "/etc/config.json", "subnets//config.json",
    "subnets/./config.json", "C:/config.json", "subnets\\a\\config.json", "a:b/config.json", ".git/config.json",
    "subnets/.hidden/config.json", "subnets/a/run.sh", "study.yaml", ".transfer.lock", "manifest.json", "subnets/a",
    "con fig/config.json", "a\x00/config.json", "a\n/config.json", "\u202e/config.json", "a./config.json",
    "/".join(["a"] * 9) + "/config.json", "a" * 200 + "/config.json", "subnets/a/config.json/",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_names_that_no_shared_table_has_are_refused(name):
    with pytest.raises(InputError, match="is not the name of a file in a shared table"):
        parse(manifest(ENTRY | {"path": name}), "there")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (manifest(ENTRY), "names architectures.parquet twice"),
        (
            manifest(*[ENTRY | {"path": f"{a}/config.json"} for a in ("sub", "SUB")]),
            "names SUB/config.json twice",
        ),
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
        (b"{", "not a manifest"),
        (b"", "not a manifest"),
        (b"\xff\xfe", "not a manifest"),
        (b"[" * 10**6, "not a manifest"),
        (b"null", "not a manifest"),
        (b" " * (MAX_BYTES + 1), "more than"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_manifests_that_lie_are_refused_in_a_line(raw, message):
    with pytest.raises(InputError, match=message) as error:
        parse(raw, "there")
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize(
    "name", ["subnets/0123456789ab-trial-3/model.safetensors", "a/b_c/d.e/README.md", "front.png"]
)
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
    with pytest.raises(InputError, match="not the name of a file"):
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
    assert "architectures.parquet" not in left and "manifest.json" not in left, (
        "what follows was not fetched"
    )
    assert all(left[path] == contents(copy)[path] for path in left), "what came before is whole"
    file.write_bytes(data)
    assert get(copy, tmp_path / "got").moved_files == len(contents(copy)) - len(left)


@pytest.mark.parametrize("link", ["subnets", "architectures.parquet", "manifest.json"])
@pytest.mark.parametrize("writes", ["pull", "push"])
def test_links_in_the_target_are_not_followed(small_study, shared, tmp_path, link, writes):
    target, outside = tmp_path / "target", tmp_path / "outside"
    target.mkdir()
    (target / LOCK).touch()
    outside.mkdir() if link == "subnets" else outside.write_text("mine")
    (target / link).symlink_to(outside)
    with pytest.raises(InputError, match="is a link"):
        get(shared, target) if writes == "pull" else push(
            str(small_study), str(target), notify=print
        )
    assert not list(outside.iterdir()) if link == "subnets" else outside.read_text() == "mine"


def test_more_than_is_allowed_is_refused_before_anything_is_fetched(shared, copy, tmp_path):
    size = sum(entry.size for entry in parse((shared / "manifest.json").read_bytes(), "").files)
    with pytest.raises(InputError, match="--max-size 1 allows it"):
        get(shared, tmp_path / "got", max_size=size - 1)
    assert not (tmp_path / "got").exists()
    assert get(shared, tmp_path / "got", max_size=size).files
    rewrite(copy, lambda held: held["files"][0].update(size=2**50))
    with pytest.raises(
        InputError, match=r"more than the 1 GB allowed; --max-size 1125900 allows it"
    ):
        get(copy, tmp_path / "other")


def test_a_transfer_that_does_not_fit_on_the_disk_is_not_started(copy, tmp_path):
    rewrite(copy, lambda held: held["files"][0].update(size=2**50))
    with pytest.raises(TransferError, match=r"needs 1.13e\+03 TB, the disk has .* left"):
        get(copy, tmp_path / "got", max_size=2**60)
    assert not contents(tmp_path / "got")


def test_two_transfers_do_not_write_into_one_folder(shared, tmp_path):
    folder = Folder(tmp_path / "got")
    with folder.prepared(), pytest.raises(InputError, match="another transfer is writing"):
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


def test_the_web_cannot_be_written(small_study):
    with pytest.raises(InputError, match="can only be read"):
        push(str(small_study), "https://example.org/table", notify=print)


@pytest.mark.parametrize(
    ("module", "address", "extra"),
    [("s3fs", "s3://bucket/x", "s3"), ("huggingface_hub", "hf://datasets/owner/name", "hf")],
)
def test_a_missing_extra_is_named(small_study, tmp_path, monkeypatch, module, address, extra):
    monkeypatch.setitem(sys.modules, module, None)
    for send in (
        lambda: push(str(small_study), address, notify=print),
        lambda: get(address, tmp_path / "got"),
    ):
        with pytest.raises(InputError, match=rf"pip install -e '\.\[{extra}\]'"):
            send()

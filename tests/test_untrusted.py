"""Strangers' ids, paths, names and columns reach nothing outside the folder and execute nothing."""

from __future__ import annotations

import json
import os
import shutil

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import ofbnas
from conftest import ROOT
from rows import write_row
from sharing import contents, get
from test_strangers import true_row

from ofbnas.errors import InputError
from ofbnas.files.untrusted import in_markdown, inside, visible
from ofbnas.table import parquet
from ofbnas.table.merge import merge
from ofbnas.table.plot import plot_front
from ofbnas.table.schema import SCHEMA
from ofbnas.table.sharing.manifest import CARD_MARK
from ofbnas.table.sharing.share import push
from ofbnas.table.store import next_trial, num_rows, read_table, write_table

OBEYED = "\x1b]0;pwned\x07\x1b[2J[link=http://evil][/x]\u202e"
MARKUP = "</code><script>alert(1)</script> ```\ncurl evil | sh\n``` [x](javascript:1) $\\bad{$"


def altered(table, **values):
    """A table with a changed first row, as anyone could write it with any tool."""
    frame = read_table(table)
    for name, value in values.items():
        frame[name] = [value, *frame.get(name, pd.Series([None] * len(frame)))[1:]]
    return frame


@pytest.fixture
def study(small_study, tmp_path):
    return shutil.copytree(small_study, tmp_path / "study")


@pytest.mark.parametrize(
    "arch_id", ["../../victim/.docker", "/tmp/x", "0123456789aB", "0123456789abc", "\x1b[2J"]
)
def test_an_invalid_id_is_refused_where_a_table_is_read(study, tmp_path, arch_id):
    (tmp_path / "victim").mkdir()
    frame = altered(study, arch_id=arch_id)
    shutil.rmtree(study / "architectures")
    write_table(frame, study / "architectures" / "all.parquet")
    for words in (
        ("table", "merge", study, "--out", tmp_path / "out"),
        ("front", "show", study),
        ("arch", "list", study),
    ):
        refused = ofbnas(*words)
        assert refused.returncode == 2 and "is not an architecture's id" in refused.stderr, refused
        assert "\x1b" not in refused.stderr + refused.stdout
    assert not (tmp_path / "out").exists() and not list((tmp_path / "victim").iterdir())


def test_a_merge_takes_the_known_files_and_follows_no_link(study, tmp_path):
    (tmp_path / "secret").write_text("secret")
    folder = next((study / "subnets").iterdir())
    (folder / "run.sh").write_text("a stranger's")
    merge([study], tmp_path / "both")
    assert {file.name for file in (tmp_path / "both").rglob("*") if file.is_file()} == {
        "merged.parquet", "config.json", "model.safetensors", "README.md",
    }  # fmt: skip
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match="leads through a link"):
        merge([study], tmp_path / "again")
    assert not [place for place in tmp_path.iterdir() if "again" in place.name], (
        "and leaves nothing half made"
    )


def test_a_push_follows_no_link(study, tmp_path):
    (tmp_path / "secret").write_text("secret")
    for file in study.glob("subnets/*/README.md"):
        file.unlink()
        file.symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match="leads through a link"):
        push(str(study), str(tmp_path / "shared"), notify=print)
    assert not list(tmp_path.glob("shared/**/README.md"))


def test_a_pull_from_a_folder_follows_no_link_and_waits_for_no_pipe(study, tmp_path):
    push(str(study), str(tmp_path / "shared"), notify=print)
    table = tmp_path / "shared" / "architectures.parquet"
    table.rename(tmp_path / "elsewhere")
    table.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="is a link"):
        get(tmp_path / "shared", tmp_path / "got")
    table.unlink()
    os.mkfifo(table)
    with pytest.raises(InputError, match="is not a regular file"):
        get(tmp_path / "shared", tmp_path / "other")


@pytest.mark.parametrize("manifest", ["{}", '{"name": "a web app"}', None])
def test_a_push_replaces_nothing_in_a_folder_that_is_not_a_shared_tables(study, tmp_path, manifest):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "README.md").write_text("mine")
    (tmp_path / "site" / ("manifest.json" if manifest else "index.html")).write_text(manifest or "")
    with pytest.raises(InputError, match="holds other files"):
        push(str(study), str(tmp_path / "site"), notify=print)
    assert (tmp_path / "site" / "README.md").read_text() == "mine"


def test_a_push_replaces_the_card_that_it_wrote_and_no_other(study, shared, tmp_path):
    """A valid manifest does not make a folder's README.md ours."""
    target = shutil.copytree(shared, tmp_path / "site")
    write_row(study, true_row(77))  # so that the card differs
    for text in ("mine", "# Architectures of small\n"):
        (target / "README.md").write_text(text)
        before = contents(target)
        with pytest.raises(
            InputError, match=r"README.md: was not written by ofbnas, or was changed since; move it"
        ):
            push(str(study), str(target), notify=print)
        assert contents(target) == before
    (target / "README.md").unlink()
    os.mkfifo(target / "README.md")
    with pytest.raises(InputError, match=r"README.md: cannot be read, it is not a regular file"):
        push(str(study), str(target), notify=print)
    (target / "README.md").unlink()
    push(str(study), str(target), notify=print)
    assert "5 trials" not in (target / "README.md").read_text(), (
        "the card of another state of the table is replaced"
    )
    (target / "manifest.json").write_bytes((shared / "manifest.json").read_bytes())
    write_row(study, true_row(78))
    push(
        str(study), str(target), notify=print
    )  # as if the push was killed between the card and the manifest
    assert "7 trials" in (target / "README.md").read_text()


def test_a_card_of_an_older_version_is_known_by_its_manifest(study, tmp_path):
    target = shutil.copytree(ROOT / "tests" / "data" / "table-before-data", tmp_path / "old")
    assert CARD_MARK not in (target / "README.md").read_text()
    push(str(study), str(target), notify=print)
    assert CARD_MARK in (target / "README.md").read_text()


def test_a_merge_waits_for_no_pipe(study, tmp_path):
    for file in study.glob("subnets/*/README.md"):
        file.unlink()
        os.mkfifo(file)
    merge([study], tmp_path / "both")
    assert {file.name for file in (tmp_path / "both").glob("subnets/*/*")} == {
        "config.json",
        "model.safetensors",
    }


def test_a_terminal_shows_what_a_stranger_wrote_and_obeys_none_of_it(study, tmp_path):
    frame = altered(study, study=OBEYED, model=OBEYED, reason=OBEYED, **{"hp.\x1b[31m[bold]": "x"})
    write_table(frame, tmp_path / "table.parquet")
    table = tmp_path / "table.parquet"
    arch_id = frame["arch_id"][0]
    for words in (
        ("front", "show", table), ("arch", "list", table), ("arch", "show", table, "--arch", arch_id),
        ("table", "describe", table), ("table", "validate", table), ("front", "show", table, "--group", "study"),
        ("arch", "list", table, "--where", OBEYED), ("front", "show", tmp_path / OBEYED),
    ):  # fmt: skip
        done = ofbnas(*words)
        printed = done.stdout + done.stderr
        assert printed and "Traceback" not in printed
        assert not {"\x1b", "\x07", "\u202e"} & set(printed), words
    assert "[link=http://evil][/x]" in ofbnas(
        "arch", "show", table, "--arch", arch_id
    ).stdout.replace("\n", "")


def test_a_card_shows_what_a_stranger_wrote(study, tmp_path):
    frame = altered(study, study=MARKUP, model=MARKUP, dataset=MARKUP)
    write_table(frame, tmp_path / "t" / "architectures.parquet")
    push(str(tmp_path / "t"), str(tmp_path / "shared"), weights="none", notify=print)
    card = (tmp_path / "shared" / "README.md").read_text()
    body = card.split("---\n", 2)[2]
    assert "<script>" not in body and "\ncurl evil" not in body and "](javascript" not in body
    assert body.count("```") == 6, "the card's own blocks of code"


def test_an_infinite_accuracy_is_on_no_front(study, tmp_path):
    write_table(altered(study, top1=float("inf")), tmp_path / "t" / "architectures.parquet")
    push(str(tmp_path / "t"), str(tmp_path / "shared"), weights="none", notify=print)
    assert "inf" not in ofbnas("front", "show", tmp_path / "shared").stdout


@pytest.mark.parametrize("ending", [".png", ".html"])
def test_labels_are_names_and_not_formulas(study, tmp_path, ending):
    rows = read_table(study)
    plot_front({MARKUP: rows, "$x^2$": rows}, tmp_path / f"front{ending}")
    assert (tmp_path / f"front{ending}").stat().st_size > 10_000


def test_copies_that_sync_tools_make_are_not_trials(tmp_path):
    for trial in range(2):
        file = write_row(tmp_path, true_row(trial))
    for name in ("trial-00001 (1).parquet", "trial-00001.sync-conflict-20261124.parquet"):
        shutil.copy(file, file.with_name(name))
    assert (num_rows(tmp_path), next_trial(tmp_path), len(read_table(tmp_path))) == (2, 2, 2)


def bomb(path, **columns):
    """A small file whose columns are repeated or long values."""
    rows = len(next(iter(columns.values())))
    true = true_row()
    arrays = [
        columns.get(field.name, pa.repeat(pa.scalar(true.get(field.name), field.type), rows))
        for field in SCHEMA
    ]
    fields = [pa.field(field.name, array.type) for field, array in zip(SCHEMA, arrays, strict=True)]
    table = pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata={"ofbnas_schema": "1"}))
    pq.write_table(table, path, compression="zstd")
    assert path.stat().st_size < 500_000
    return path


def repeated(value, rows):
    return pa.DictionaryArray.from_arrays(
        pa.repeat(pa.scalar(0, pa.int32()), rows), pa.array([value])
    )


def test_a_text_that_a_small_file_repeats_is_counted_before_it_is_expanded(tmp_path):
    file = bomb(tmp_path / "texts.parquet", reason=repeated("x" * 1_000_000, 100_000))
    usual = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(usual)  # its peak is that of what follows alone
    pa.set_memory_pool(pool)
    try:
        with pytest.raises(InputError, match="unpacks to more than [0-9,]+ bytes"):
            read_table(file)
    finally:
        pa.set_memory_pool(usual)
    assert 0 < pool.max_memory() < 2**29
    assert len(read_table(file, columns=["gmacs"])) == 100_000, (
        "what is not asked for costs nothing"
    )


def test_lists_without_end_are_refused_by_their_footer(tmp_path):
    kind = SCHEMA.field("architecture").type
    embed = pa.ListArray.from_arrays(
        pa.array([0, 20_000_000], pa.int32()), pa.repeat(pa.scalar(1, pa.int32()), 20_000_000)
    )
    blocks = pa.array([[]], kind.field("blocks").type)
    nested = pa.StructArray.from_arrays(
        [embed, blocks], fields=[kind.field("embed"), kind.field("blocks")]
    )
    with pytest.raises(InputError, match="has 20,000,000 elements, expected"):
        read_table(bomb(tmp_path / "lists.parquet", architecture=nested))


@pytest.mark.slow
def test_wide_values_and_texts_in_lists_are_bounded_too(tmp_path, monkeypatch):
    table = pa.table({"wide": pa.repeat(pa.scalar(b"x" * 1000, pa.binary(1000)), 1000)})
    pq.write_table(table.replace_schema_metadata({"ofbnas_schema": "1"}), tmp_path / "wide.parquet")
    with pytest.raises(InputError, match="has values of 1,000 bytes"):
        parquet.read(tmp_path / "wide.parquet")
    names = pa.array([["x" * 100_000] * 50] * 200)
    pq.write_table(
        pa.table({"n": names}).replace_schema_metadata({"ofbnas_schema": "1"}),
        tmp_path / "names.parquet",
    )
    with pytest.raises(InputError, match="unpacks to more than"):
        parquet.read(tmp_path / "names.parquet")
    monkeypatch.setattr(parquet, "BASE_BYTES", 2**32)
    assert parquet.read(tmp_path / "names.parquet").num_rows == 200, "a limit, and no other reason"


def test_a_pipe_is_not_a_table(tmp_path):
    os.mkfifo(tmp_path / "pipe.parquet")
    with pytest.raises(InputError, match="is not a regular file"):
        read_table(tmp_path / "pipe.parquet")


def test_sizes_that_are_not_numbers_are_refused(tmp_path):
    refused = ofbnas("table", "pull", tmp_path, tmp_path / "x", "--max-size", "inf")
    assert refused.returncode == 2 and "is not a number of GB" in refused.stderr


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        *((path, "not a path") for path in ("../x", "/x", "a/./b", "a\\b", "a\0", "x" * 5000)),
        ("link/x", "leads through a link"),
    ],
)
def test_paths_stay_inside(tmp_path, path, problem):
    (tmp_path / "link").symlink_to("/etc")
    with pytest.raises(InputError, match=problem):
        inside(tmp_path, path, "a table")
    assert inside(tmp_path, "a/b", "a table") == tmp_path / "a" / "b"


def test_text_is_shown_as_it_is():
    assert visible("ä—漢 a\tb\x1b\x9b\u202e\n") == "ä—漢 a\\x09b\\x1b\\x9b\\u202e\\x0a"
    assert visible("a\tb\n", lines=True) == "a\tb\n"
    assert in_markdown("a_b <i>\n`c`") == "a\\_b &lt;i&gt; \\`c\\`"
    assert json.dumps("\x1b") == '"\\u001b"', "why JSON is printed in ASCII"

"""README and docs/: every command exists with its options, and what can run here runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from contextlib import chdir

import pytest
import torch
from commands import ofbnas
from conftest import ROOT, make
from pages import PAGES, TABLE, blocks, commands, place_of
from photographs import write_pieces

from ofbnas.table.front import front
from ofbnas.table.query import to_records
from ofbnas.table.store import read_table
from ofbnas.table.units import with_unit
from ofbnas.training.data import load_data

DOCS = ROOT / "docs"
README = ROOT / "README.md"
# What the pages run, in their order; of other pages, other tests do.
FINISHED = [DOCS / f"{name}.md" for name in ("tutorial", "report", "sharing")]
TRAINING = [DOCS / f"{name}.md" for name in ("own_model", "studies")]
ELSEWHERE = {
    "ofbnas study run photos.yaml": "tests/study/test_new.py",
    "ofbnas space list 'deit*'": "tests/models/test_families.py",
}
QUICK = {
    "bench": ["--seconds", "0.02"]
}  # options that change how long a command takes, nothing else


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_exists_with_its_options(page):
    for command in commands(page):
        words = shlex.split(command, comments=True)
        if words[0] in ("--install-completion", "--version"):
            continue
        # Help is printed once all options are read. A sentence may leave out an option's value.
        done = ofbnas(*words, "1", "--help")
        assert done.returncode == 0, f"ofbnas {command}: {done.stderr}"


def test_there_are_commands_in_readme_and_tutorial():
    assert len(commands(README)) >= 2 and len(commands(DOCS / "tutorial.md")) >= 15


@pytest.mark.slow
@pytest.mark.parametrize("pages", [FINISHED, TRAINING], ids=["finished", "training"])
def test_the_commands_of_the_pages_run_in_their_order(pages, tmp_path, monkeypatch):
    monkeypatch.setenv("OFBNAS_CACHE", str(tmp_path / "cache"))
    place = place_of(tmp_path, short=pages is TRAINING)
    write_pieces(place / "photos")
    lines = [
        line for page in pages for block in blocks(page, "sh") for line in block.text.splitlines()
    ]
    assert len(lines) >= 8
    for line in lines:
        if line.partition("#")[0].strip() in ELSEWHERE:
            continue
        program, *words = shlex.split(line, comments=True)
        assert program == "ofbnas", line
        done = ofbnas(*words, *QUICK.get(words[0], []), cwd=place)
        assert done.returncode == 0, f"{line}: {done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [DOCS / "tutorial.md", DOCS / "table.md"], ids=lambda page: page.stem
)
def test_the_snippets_of_the_pages_run(page, tmp_path):
    place = place_of(tmp_path)
    known: dict[str, object] = {}
    found = blocks(page, "python")
    assert len(found) >= 2
    with chdir(place):
        for block in found:
            exec("import ofbnas\n" + block.text, known)
    if page.stem == "tutorial":
        assert isinstance(known["model"], torch.nn.Module)


@pytest.mark.slow
@pytest.mark.parametrize("page", [README, DOCS / "own_model.md"], ids=lambda page: page.stem)
def test_the_snippet_that_compresses_runs_with_loaders_of_ones_own(page, tmp_path):
    """With a small model in place of one whose weights would be downloaded."""
    (block,) = (block for block in blocks(page, "python") if "ofbnas.compress" in block.text)
    text = re.sub(r"^model = .*$", "", block.text, flags=re.M)
    digits = load_data("digits")
    train, val = (
        torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(split.images[:256], split.labels[:256]), batch_size=64
        )
        for split in (digits.train, digits.val)
    )
    model = make(patch_size=4)
    known = {"model": model, "train_loader": train, "val_loader": val}
    with chdir(tmp_path):
        exec(text, known)
    assert known["result"].macs <= 0.5 * known["result"].parent_macs
    images = digits.val.images[:4]
    assert torch.equal(known["small"](images), known["result"].model(images))


@pytest.mark.slow
def test_the_snippet_that_searches_runs_as_it_stands():
    (block,) = (
        block for block in blocks(DOCS / "own_model.md", "python") if "SearchConfig" in block.text
    )
    done = subprocess.run(
        [sys.executable, "-c", block.text], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "'embed'" in done.stdout and "top1" in done.stdout


def test_the_readme_shows_the_front_of_the_table_that_comes_with_ofbnas():
    text = README.read_text()
    rows = to_records(front(read_table(TABLE)))
    for row in rows:
        (line,) = (line for line in text.splitlines() if line.startswith(row["arch_id"]))
        costs = [with_unit(name, row[name]) for name in ("gmacs", "params")]
        assert re.split(r" {2,}", line.strip())[1:5] == [
            *costs,
            f"{row['val_top1']:.2f}",
            f"{row['top1']:.2f}",
        ]
    assert f"{len(rows)} of 10 rows are on the front" in text
    printed = ofbnas("front", "show", TABLE).stdout
    # How long lines are depends on the version of rich.
    assert as_words(printed) in as_words(text), "what is printed now"


def as_words(text: str) -> str:
    return re.sub("─+", "─", " ".join(text.split()))


def test_a_page_leaves_out_only_what_cannot_run_here():
    reasons = [
        note
        for page in PAGES
        for note in re.findall(r"<!-- not run: ([^>]*) -->", page.read_text())
    ]
    assert 5 <= len(reasons) <= 8, "each says why; a new one should be rare"

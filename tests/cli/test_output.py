"""What commands print on terminals of several widths, with and without color, and into pipes."""

from __future__ import annotations

import os
import pty
import re
import sys
import termios
from contextlib import contextmanager
from unittest.mock import patch

import pytest
from commands import ofbnas
from conftest import ROOT
from made_studies import failed_row, finished, row_of

from ofbnas.cli.output import cell, say

DIGITS = ROOT / "studies" / "tables" / "digits"
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("runs") / "study")


@pytest.fixture(params=[80, 120])
def width(request, monkeypatch):
    """A terminal of a width, as rich takes it from these variables."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(request.param))
    return request.param


def printed(*args) -> str:
    done = ofbnas(*args)
    assert done.returncode == 0, done.stderr
    return done.stdout


def tables_in(text: str) -> str:
    """The lines of tables; other lines are not wrapped here, as they go to no real terminal."""
    lines = ESCAPES.sub("", text).splitlines()
    return "\n".join(line for line in lines if "  " in line.strip() or "\u2500" in line)


def test_columns_are_left_out_and_ids_and_numbers_never_split(study, width):
    text = printed("study", "show", study)
    shown = tables_in(text)
    assert max(map(len, shown.splitlines())) <= width
    for trial in range(10):
        row = row_of(trial)
        for name in ("arch_id", "gmacs", "params", "val_top1"):
            assert f" {cell(name, row[name])} " in shown
    left_out = re.search(r"Not shown here: (.*)\. A wider terminal", text)
    names = [] if left_out is None else left_out[1].split(", ")
    assert ("hp.search.one_hot_weight" in names) == (width == 80)
    assert ("0.12" in shown.split()) == (width == 120), "which is shown there"


@pytest.mark.parametrize(
    ("value", "text"),
    [(10210.4, "10,210"), (12_345, "12,345"), (9999.4, "9999"), (-0.01234567, "-0.01235")],
)
def test_large_numbers_are_whole_and_others_short(value, text):
    assert cell("images_per_second", value) == text


@pytest.mark.parametrize(
    "words",
    [
        ("study", "list", "STUDY"), ("arch", "list", DIGITS), ("arch", "show", DIGITS, "--arch", "370a"),
        ("table", "describe", DIGITS), ("front", "show", DIGITS),
        ("front", "compare", DIGITS, ROOT / "studies" / "tables" / "fashion_mnist"),
        ("front", "show", ROOT / "studies" / "tables" / "published.parquet"),
    ],
    ids=lambda words: " ".join(map(str, words[:2])),
)  # fmt: skip
def test_tables_fit(study, width, words):
    shown = tables_in(printed(*(study if word == "STUDY" else word for word in words)))
    assert shown and max(map(len, shown.splitlines())) <= width
    if "list" in words or words[1] == "show":
        assert re.search(r"[0-9a-f]{12}\b", shown) or "study" in shown.split()


def test_a_pipe_gets_all_columns_in_one_line_per_row(study):
    text = printed("study", "show", study)
    assert "\x1b" not in text and "Not shown here" not in text
    assert failed_row(10, "x")["hp.search.one_hot_weight"] == 0.06
    reason = "NotFiniteError: the loss became NaN in search, step 12"
    assert len([line for line in text.splitlines() if reason in line and "failed" in line]) == 2
    assert "hp.search.budget.gmacs_share" in text


def test_settings_are_shown_in_few_lines(study):
    settings = printed("study", "show", study).split("\n\n")[0]
    assert len(settings.splitlines()) < 40 and "gmacs_share: {low: 0.02" in settings


@contextmanager
def terminal(columns: int):
    """Standard output as a terminal; gives a function that returns what was written."""
    main, side = pty.openpty()
    termios.tcsetwinsize(side, (24, columns))
    with os.fdopen(side, "w") as stream, patch.object(sys, "stdout", stream):
        yield lambda: (stream.flush(), os.read(main, 100_000).decode())[1].replace("\r\n", "\n")
    os.close(main)


def test_a_sentence_wraps_at_words_on_a_terminal():
    sentence = "Nine words of several lengths, and deit_small_patch16_224 among them."
    with terminal(30) as written:
        say(sentence)
        lines = written().splitlines()
    assert " ".join(lines) == sentence and len(lines) == 3
    assert max(map(len, lines)) <= 30
    with terminal(0) as written:  # a terminal that does not know its width
        say(sentence)
        assert written() == f"{sentence}\n"

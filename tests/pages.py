"""The pages for users, their blocks of code, and a folder in which these can run."""

from __future__ import annotations

import re
import shutil
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from textwrap import indent
from typing import NamedTuple

import yaml
from conftest import DIGITS, NAME, ROOT
from made_studies import journal_of
from rows import write_row

from ofbnas.config.study_file import dump_study, load_study
from ofbnas.table.history import history_arrow, write_history
from ofbnas.table.store import read_arrow

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(
    r"(?:<!-- (?P<note>[^>]*) -->\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```", re.M | re.S
)
COMMAND = re.compile(r"(?:^ {4,}|`|-m )ofbnas (?P<words>[^`\n]+)", re.M)
TABLE = ROOT / "studies" / "tables" / "digits"
SMALL = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 16, "depth": 1, "num_heads": 2}
SHORT = {
    "model": {"name": NAME, "kwargs": SMALL},
    "pretrain": {"epochs": 3, "lr": 3e-3},
    "search": {
        "epochs": 1,
        "budget": {"gmacs_share": 0.5},
        "refine": {"candidates": 0},
        "compensation": {"images": 64},
        "training_free": {"scoring_images": 32},
    },
    "finetune": None,
    "sweep": {"n_trials": 2, "params": {"search.budget.gmacs_share": {"low": 0.3, "high": 0.6}}},
}


class Block(NamedTuple):
    """A block of code.

    Attributes:
        kind: Its language.
        text: What it holds.
        note: The comment above it, such as "not run: needs GPUs"; empty if there is none.
    """

    kind: str
    text: str
    note: str


def blocks(page: Path, kind: str) -> list[Block]:
    """The blocks of a page that are in a language and can run here."""
    found = [
        Block(match["kind"], match["text"], match["note"] or "")
        for match in FENCE.finditer(page.read_text())
    ]
    return [
        block for block in found if block.kind == kind and not block.note.startswith("not run: ")
    ]


def commands(page: Path) -> list[str]:
    """What follows the word ofbnas in all commands of a page, in blocks and in sentences."""
    text = page.read_text().replace("\\\n", " ")
    # Fenced blocks are written like those that are indented.
    text = FENCE.sub(lambda match: indent(match["text"], "    "), text)
    text = re.sub(r"`([^`\n]*)\n\s*([^`\n]*)`", r"`\1 \2`", text)  # a command in two lines
    return [match["words"].strip() for match in COMMAND.finditer(text)]


def write_digits(folder: Path) -> Path:
    """The study's folder that runs/digits was when its table was pushed to the repository."""
    shutil.copytree(TABLE / "subnets", folder / "subnets")
    (folder / "study.yaml").write_text(dump_study(load_study(DIGITS)))
    rows = read_arrow(TABLE).to_pylist()
    for row in rows:
        write_row(folder, row)
    decisions = history_arrow(TABLE).to_pylist()
    for trial, of_trial in groupby(decisions, key=itemgetter("trial")):
        write_history(folder, trial, list(of_trial), study="digits")
    journal_of(folder, rows)
    return folder


def place_of(folder: Path, *, short: bool = False) -> Path:
    """A folder like a clone in which the digits' study has been run.

    Args:
        folder: Where to write.
        short: Whether the study of the digits in it is a short one.
    """
    for name in ("digits.yaml", "deit_s.yaml", "fashion_mnist.yaml"):
        (folder / "studies").mkdir(exist_ok=True)
        shutil.copy(ROOT / "studies" / name, folder / "studies")
    shutil.copytree(TABLE, folder / "studies" / "tables" / "digits")
    write_digits(folder / "runs" / "digits")
    if short:
        tree = yaml.safe_load(DIGITS.read_text())
        (folder / "studies" / "digits.yaml").write_text(yaml.safe_dump(tree | SHORT))
    return folder

"""Examples in docstrings give what they show."""

from __future__ import annotations

import doctest
import importlib

import pytest
from conftest import ROOT

# Found by their text: importing every module for the few that have examples would take seconds.
MODULES = [
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for file in sorted((ROOT / "ofbnas").rglob("*.py"))
    if ">>> " in file.read_text(encoding="utf-8")
]


def test_there_are_examples():
    assert MODULES


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_show(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted
    assert not result.failed, "see the captured output"

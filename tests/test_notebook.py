"""The examples with cells run as notebooks do, and what their cells end with can be read."""

from __future__ import annotations

import ast
from typing import Any

import matplotlib
import pytest
from conftest import ROOT
from matplotlib.figure import Figure

import ofbnas


@pytest.fixture
def run(monkeypatch):
    """Runs an example from the project's folder: what its cells end with, and its names."""
    monkeypatch.chdir(ROOT)
    matplotlib.use("Agg")
    return executed


def executed(example: str) -> tuple[list[Any], dict[str, Any]]:
    names: dict[str, Any] = {}
    values = []
    for cell in cells((ROOT / "examples" / example).read_text()):
        *before, last = ast.parse(cell).body
        exec(compile(ast.Module(before, []), "cell", "exec"), names)
        assert isinstance(last, ast.Expr), "each cell ends with what it shows"
        values.append(eval(compile(ast.Expression(last.value), "cell", "eval"), names))
        assert len(repr(values[-1])) < 2000
    return values, names


def cells(source: str) -> list[str]:
    """The cells of a script that contain code."""
    parts = [part.partition("\n") for part in source.split("# %%")[1:]]
    return [code for head, _, code in parts if "markdown" not in head]


def test_a_model_is_compressed_and_searched_in_a_notebook(run, capsys):
    shown, names = run("notebook.py")
    compressed, found, front = (value._repr_html_() for value in shown[3:])
    assert names["compressed"].subnet.architecture.id in compressed
    assert f"{names['found'].macs:,}" in found
    assert all(arch_id in front for arch_id in ofbnas.front(names["table"])["arch_id"])
    assert capsys.readouterr().out.splitlines()[-1].startswith("search: epoch 3 of 3, loss ")


def test_what_a_study_found_is_looked_at_in_a_notebook(run):
    shown, names = run("results_notebook.py")
    table, front, dominated, picture, history, axes, accuracy, mistakes = shown
    assert len(table) > len(front) == len(names["front"])
    assert 0.5 < dominated.share < 1
    assert isinstance(picture, Figure) and isinstance(mistakes, Figure)
    assert history.max().max() < 1 and not history.isna().any().any()
    assert axes[0].name == "embed"
    assert accuracy.top1 == pytest.approx(front["top1"].iloc[0])
    assert any(panel.get_images() for panel in mistakes.axes)

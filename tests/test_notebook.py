"""The example with cells runs as a notebook does, and what its cells end with can be read."""

from __future__ import annotations

import ast

from conftest import ROOT

import ofbnas


def cells(source: str) -> list[str]:
    """The cells of a script that contain code."""
    parts = [part.partition("\n") for part in source.split("# %%")[1:]]
    return [code for head, _, code in parts if "markdown" not in head]


def test_a_notebook_is_executed_and_shows_what_it_made(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {}
    shown = []
    for cell in cells((ROOT / "examples" / "notebook.py").read_text()):
        *before, last = ast.parse(cell).body
        exec(compile(ast.Module(before, []), "cell", "exec"), names)
        assert isinstance(last, ast.Expr), "each cell ends with what it shows"
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
        html = getattr(value, "_repr_html_", lambda: None)()
        shown.append((repr(value), html))
        assert len(repr(value)) < 2000
    assert len(shown) == 6
    compressed, found, front = (html for _, html in shown[3:])
    assert names["compressed"].subnet.architecture.id in compressed
    assert f"{names['found'].macs:,}" in found
    assert all(arch_id in front for arch_id in ofbnas.front(names["table"])["arch_id"])
    assert capsys.readouterr().out.splitlines()[-1].startswith("search: epoch 3 of 3, loss ")

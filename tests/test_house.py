"""Rules for the whole code: lint, types, import contracts, and a fast import."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

import ofbnas

BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check"],
        ["ruff", "format", "--check"],
        ["lint-imports"],
        pytest.param(["mypy"], marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_tools_find_nothing(command):
    done = subprocess.run(
        [BIN / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_linter_finds_nothing_in_the_pages_javascript(tmp_path):
    """The scripts share one scope, so they are checked together, as in the page."""
    from ofbnas.study.report.page import script

    (tmp_path / "page.js").write_text(script())
    words = [
        BIN / "oxlint",
        "--config",
        ROOT / ".oxlintrc.json",
        "--deny-warnings",
        tmp_path / "page.js",
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "statement", ["import ofbnas", "import ofbnas.cli", "from ofbnas.cli import main"]
)
def test_importing_is_light(statement):
    heavy = ("torch", "ray", "optuna", "timm", "pandas")
    code = f"{statement}; import sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_imports_little():
    """What it imports is nearly all of its time; the time itself depends on the machine."""
    code = """
import contextlib, io, json, sys
before = set(sys.modules)
from ofbnas.cli import main
sys.argv = ["ofbnas", "--help"]
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main()
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = json.loads(done.stdout)
    packages = {name.partition(".")[0] for name in imported} - sys.stdlib_module_names
    assert packages <= {"ofbnas", "typer", "rich", "click", "shellingham", "annotated_doc"}
    assert "ofbnas.cli.study" in imported and len(imported) < 300


def test_everything_public_can_be_imported():
    assert all(getattr(ofbnas, name) is not None for name in ofbnas.__all__)
    assert dir(ofbnas) == ofbnas.__all__
    assert ofbnas.__version__ == importlib.metadata.version("ofbnas")
    with pytest.raises(AttributeError, match="nothing"):
        _ = ofbnas.nothing


@pytest.mark.slow
def test_a_search_needs_neither_ray_nor_optuna():
    code = """
import sys
sys.modules["ray"] = sys.modules["optuna"] = None
import ofbnas.nas.search, ofbnas.training.finetune, ofbnas.study.parent, ofbnas.study.trial, ofbnas.cli.search
ofbnas.study.provenance.versions()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_public_names_stay_whatever_is_imported_before():
    """Importing a module sets an attribute of its package, so no module may share a public name."""
    modules = "ofbnas.models.axes, ofbnas.nas.search, ofbnas.study.trial, ofbnas.table.front, ofbnas.training.finetune"
    code = f"import ofbnas, {modules}; print([n for n in ofbnas.__all__ if not callable(getattr(ofbnas, n))])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    below = {place.stem for place in (ROOT / "ofbnas").iterdir()}
    assert not below & set(ofbnas.__all__)

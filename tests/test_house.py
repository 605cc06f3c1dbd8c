"""The house rules: lint, types, import contracts, and a light front door."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command", [["ruff", "check"], ["ruff", "format", "--check"], ["mypy"], ["lint-imports"]], ids=" ".join
)
def test_tools_find_nothing(command):
    done = subprocess.run([BIN / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("statement", ["import ofbnas", "import ofbnas.cli", "from ofbnas.cli import main"])
def test_importing_is_light(statement):
    code = (
        f"{statement}; import sys; print([m for m in ('torch', 'ray', 'optuna', 'timm', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_takes_less_than_half_a_second_of_processor_time():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([BIN / "ofbnas", "--help"], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_everything_public_can_be_imported():
    import ofbnas

    assert all(getattr(ofbnas, name) is not None for name in ofbnas.__all__)
    assert dir(ofbnas) == ofbnas.__all__
    with pytest.raises(AttributeError, match="nothing"):
        _ = ofbnas.nothing


def test_a_search_needs_neither_ray_nor_optuna():
    code = """
import sys
sys.modules["ray"] = sys.modules["optuna"] = None
import ofbnas.search, ofbnas.finetune, ofbnas.parent, ofbnas.trial, ofbnas.cli.search
ofbnas.trial.versions()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_stay_whatever_is_imported_before():
    """Rooms such as ofbnas.front are called like the function they are for."""
    rooms = "ofbnas.axes, ofbnas.compare, ofbnas.finetune, ofbnas.front, ofbnas.search, ofbnas.trial"
    code = f"import ofbnas, {rooms}; print([n for n in ofbnas.__all__ if not callable(getattr(ofbnas, n))])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

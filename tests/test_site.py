"""docs/ as a site: it is built without a warning, and its references are complete."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

import ofbnas
from ofbnas.config.study import StudyConfig


def build(config, out):
    """mkdocs in a process of its own, as the references are made with the code as it is imported."""
    words = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    return subprocess.run(
        [*words, "-f", config, "-d", out], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    done = build(ROOT / "mkdocs.yml", tmp_path / "site")
    assert done.returncode == 0, done.stderr
    reference = tmp_path / "site" / "reference"
    python = (reference / "python.html").read_text()
    assert all(f'id="ofbnas.{name}"' in python for name in ofbnas.__all__)
    commands = (reference / "cli.html").read_text()
    assert all(f">ofbnas {name}<" in commands for name in ("study new", "front compare", "doctor"))
    fields = (reference / "yaml.html").read_text()
    assert all(f"<code>{name}</code>" in fields for name in StudyConfig.model_fields)
    assert "RefineConfig" in fields and "FrontStopping" in fields, "sections below sections"


@pytest.mark.slow
def test_a_broken_link_is_an_error(tmp_path):
    for part in ("docs", "tools"):
        shutil.copytree(ROOT / part, tmp_path / part)
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    for part in ("studies", "search_spaces", "ofbnas", "examples", "optunahub"):
        (tmp_path / part).symlink_to(ROOT / part)
    page = tmp_path / "docs" / "index.md"
    page.write_text(f"{page.read_text()}\n[nowhere](tutorial.md#nowhere)\n")
    done = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert done.returncode != 0 and "#nowhere" in done.stderr

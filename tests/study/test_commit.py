"""The commit in a row: missing where git cannot tell it, and never a reason for a trial to fail."""

from __future__ import annotations

import subprocess

import pytest
from conftest import DIGITS, ROOT

from ofbnas.config.study_file import load_study
from ofbnas.study import provenance
from ofbnas.study.provenance import git_commit
from ofbnas.study.trial import write_failure
from ofbnas.table import store

GITS = {
    "absent": None,
    "refuses": "#!/bin/sh\necho HEAD\necho 'fatal: detected dubious ownership' >&2\nexit 128\n",
    "hangs": "#!/bin/sh\nexec /bin/sleep 60\n",
}


@pytest.fixture(autouse=True)
def _asked_anew():
    git_commit.cache_clear()
    yield
    git_commit.cache_clear()


@pytest.fixture
def _is_a_checkout():
    if not (ROOT / ".git").exists():
        pytest.skip("these are not the files of a checkout")


@pytest.mark.usefixtures("_is_a_checkout")
def test_a_row_has_the_commit_of_the_checkout():
    head = subprocess.run(
        ["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    )
    assert git_commit() == head.stdout.strip()


@pytest.mark.usefixtures("_is_a_checkout")
@pytest.mark.parametrize("git", GITS)
def test_a_row_is_written_where_git_cannot_say_the_commit(tmp_path, monkeypatch, git):
    (tmp_path / "bin").mkdir()
    if (script := GITS[git]) is not None:
        (tmp_path / "bin" / "git").write_text(script)
        (tmp_path / "bin" / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(provenance, "GIT_SECONDS", 0.5)
    write_failure(load_study(DIGITS), {}, 0, tmp_path, "a reason")
    row = store.read_row(tmp_path, 0)
    assert row.reason == "a reason" and row.git_commit is None


@pytest.mark.usefixtures("_is_a_checkout")
def test_git_is_asked_once(tmp_path, monkeypatch):
    first = git_commit()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit() == first

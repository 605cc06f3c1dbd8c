"""What a result depends on: the study's settings, versions of packages, and the commit."""

from __future__ import annotations

import logging
import platform
import subprocess
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ofbnas.config import StudyConfig
from ofbnas.config.study_file import dump_study
from ofbnas.errors import one_line
from ofbnas.files import durable

GIT_SECONDS = 5.0  # that git may take to report a commit
log = logging.getLogger("ofbnas")


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    known = {"python": platform.python_version()}
    for package in ("ofbnas", "torch", "timm", "optuna", "ray"):
        with suppress(PackageNotFoundError):  # a search alone needs neither optuna nor ray
            known[package] = version(package)
    return known


def write_settings(config: StudyConfig, folder: Path) -> None:
    """Write a study's resolved settings to its folder, as study.yaml."""
    found = ", ".join(f"{name} {number}" for name, number in versions().items())
    header = f"# The study as it was run, by {found}.\n"
    durable.write(folder / "study.yaml", header + dump_study(config))


@cache  # one process runs from one checkout
def git_commit() -> str | None:
    """The commit of the checkout that ofbnas runs from.

    It is None where ofbnas is installed without a checkout, or where git cannot report it.
    """
    root = Path(__file__).resolve().parent.parent.parent
    # Without this check git would look further up, into a repository that ofbnas is installed in.
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        # There is no git here, the checkout is another user's, or its disk does not answer.
        log.info("the commit of %s is left out of the table: %s", root, one_line(error))
        return None
    return result.stdout.strip()

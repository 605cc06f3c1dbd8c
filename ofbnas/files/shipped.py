"""Folders of files that come with ofbnas: studies, search spaces and tables."""

from __future__ import annotations

from pathlib import Path


def shipped(folder: str, pattern: str = "*.yaml") -> dict[str, Path]:
    """What a folder that comes with ofbnas holds, by name without its ending, in order.

    Args:
        folder: Its path, such as "studies".
        pattern: Which of its contents.
    """
    # An installed package has such folders inside it, a source tree beside it.
    package = Path(__file__).parent.parent
    found: dict[str, Path] = {}
    for parent in (package.parent, package):
        for path in sorted((parent / folder).glob(pattern)):
            found[path.stem] = path
    return found

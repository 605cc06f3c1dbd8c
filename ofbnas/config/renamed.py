"""Renamed fields: the old name is still accepted, with a warning that gives the new one."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

# Old dotted name to new one. Both are in the same section.
RENAMED = {"search.beat": "search.decision_interval"}
log = logging.getLogger("ofbnas")


def current_name(path: str) -> str:
    """The current dotted name of a field, or of a part of one, given by either name."""
    for old, new in RENAMED.items():
        if path == old or path.startswith(f"{old}."):
            _warn(old)
            return new + path.removeprefix(old)
    return path


def with_current_names(value: Any, section: str) -> Any:
    """A section's values by the current names of its fields.

    Args:
        value: Values as they were given; anything but a mapping is left to validation.
        section: Dotted name of the section.

    Raises:
        ValueError: A field is given by both names.
    """
    if not isinstance(value, dict):
        return value
    current: dict[Any, Any] = {}
    for key, given in value.items():
        name = key
        # YAML keys may also be numbers; validation refuses them.
        if isinstance(key, str):
            name = current_name(f"{section}.{key}").rpartition(".")[2]
        if name in current:
            raise ValueError(f"gives {name} twice, once by its old name; leave out the old one")
        current[name] = given
    return current


@cache  # warns once per field, however often settings are read
def _warn(path: str) -> None:
    log.warning("%s is called %s now; the old name is deprecated", path, RENAMED[path])

"""Fields of nested settings by dotted name, and validation errors told in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

LIMITS = ("gmacs", "params", "gmacs_share", "params_share")


def set_value(tree: dict[str, Any], path: str, value: Any) -> None:
    """Set a value deep in a tree of mappings by its dotted name.

    A limit of a budget replaces the limit that was there, since there is only one.
    """
    *parents, leaf = path.split(".")
    for key in parents:
        if not isinstance(tree.get(key), dict):
            tree[key] = {}
        tree = tree[key]
    if parents[-1:] == ["budget"] and leaf in LIMITS:
        for other in LIMITS:
            tree.pop(other, None)
    tree[leaf] = value


def first_error(
    error: ValidationError,
    tree: Mapping[str, Any],
    root: type[BaseModel],
    lines: Mapping[tuple[str, ...], int] | None = None,
) -> str:
    """A validation error in one line: where, what was given, what was expected."""
    details = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    path = _keys_only(details["loc"], tree)
    where = ""
    if lines is not None:
        line = next((lines[path[:depth]] for depth in range(len(path), 0, -1) if path[:depth] in lines), None)
        where = f" line {line}: " if line else ": "
    name = ".".join(path)
    if details["type"] == "extra_forbidden":
        return f"{where}unknown key {name}{_nearest(path, root)}"
    if details["type"] == "missing":
        return f"{where}{name} is missing"
    if details["type"] == "value_error":
        return f"{where}{name + ' ' if name else ''}{details['msg'].removeprefix('Value error, ')}"
    return f"{where}{name} is {details['input']!r}: {details['msg'][0].lower()}{details['msg'][1:]}"


def _keys_only(loc: Sequence[str | int], tree: Any) -> tuple[str, ...]:
    """An error's place without the names of alternatives that pydantic adds to it."""
    path = []
    for index, key in enumerate(loc):
        if isinstance(tree, dict) and (key in tree or index == len(loc) - 1):
            path.append(str(key))
            tree = tree.get(key)
        elif isinstance(tree, list) and isinstance(key, int) and key < len(tree):
            path.append(str(key))
            tree = tree[key]
    return tuple(path)


def _nearest(path: Sequence[str], root: type[BaseModel]) -> str:
    """A hint at the known key nearest to the last of the path."""
    sections = {root}
    for key in path[:-1]:
        fields = [section.model_fields[key] for section in sections if key in section.model_fields]
        sections = {found for field in fields for found in _sections_in(field.annotation)} or sections
    known = sorted({field for section in sections for field in section.model_fields} - {path[-1]})
    near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; expected some of {', '.join(known)}"


def _sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that a field's type allows."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _sections_in(part)

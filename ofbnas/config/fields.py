"""Fields of nested settings by dotted name, and validation errors in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from ofbnas.config.renamed import current_name
from ofbnas.errors import InputError, one_line
from ofbnas.files.documents import parse_yaml
from ofbnas.files.untrusted import visible

LIMITS = ("gmacs", "params", "latency_ms", "gmacs_share", "params_share", "latency_share")
# pydantic's error types for a key that is not a field, or not text.
UNKNOWN_KEY = ("extra_forbidden", "invalid_key")
MAX_SHOWN = 80  # characters of a value that a message repeats


class Mistake(NamedTuple):
    """What is wrong with settings.

    Attributes:
        path: Keys of the field or section that is wrong, outermost first.
        message: What was given and what was expected, in one line.
    """

    path: tuple[str, ...]
    message: str


def set_value(tree: dict[str, Any], path: str, value: Any) -> None:
    """Set a value deep in a tree of mappings by its dotted name, in place.

    A limit of a budget replaces the limit that was there, since a budget has only one.

    >>> tree = {"search": {"epochs": 30, "budget": {"gmacs_share": 0.5}}}
    >>> set_value(tree, "search.budget.params", 2e6)
    >>> tree
    {'search': {'epochs': 30, 'budget': {'params': 2000000.0}}}
    """
    *parents, leaf = current_name(path).split(".")

    # Mappings on the way are copied: with a YAML alias, two sections may be the same object, and
    # only one of them is to change.
    for key in parents:
        section = tree.get(key)
        tree[key] = dict(section) if isinstance(section, dict) else {}
        tree = tree[key]

    if parents[-1:] == ["budget"] and leaf in LIMITS:
        for limit in LIMITS:
            tree.pop(limit, None)
    tree[leaf] = value


def set_below(tree: dict[str, Any], settings: Sequence[str], prefix: str, expected: str) -> None:
    """Set values from "NAME=VALUE" in a tree, in place, where all names begin with a prefix.

    Args:
        tree: The tree.
        settings: The values, in YAML.
        prefix: The prefix.
        expected: What was expected, for messages.

    Raises:
        InputError: It is no name with this prefix and its value.
    """
    for setting in settings:
        name, sign, written = setting.partition("=")
        if not sign or not name.startswith(prefix):
            raise InputError(f"--set {setting[:80]}: expected {expected}")
        value, _ = parse_yaml(written, f"--set {name[:80]}")
        set_value(tree, name, value)


def overlap(name: str, other: str) -> bool:
    """Whether setting one field, by dotted name, also sets the other.

    It does where one is a part of the other, or where both limit the same budget.

    >>> overlap("search.warmup", "search.warmup.epochs")
    True
    >>> overlap("search.budget.gmacs", "search.budget.params")
    True
    """
    *section, leaf = name.split(".")
    *other_section, other_leaf = other.split(".")
    both_limits = leaf in LIMITS and other_leaf in LIMITS
    if both_limits and section == other_section and section[-1:] == ["budget"]:
        return True
    return name.startswith(f"{other}.") or other.startswith(f"{name}.")


def first_error(error: ValidationError, tree: Mapping[str, Any], root: type[BaseModel]) -> Mistake:
    """The first of a validation's errors, unknown keys before others.

    Args:
        error: The errors.
        tree: What was validated.
        root: The model that validated it.
    """
    # A misspelt key often causes further errors, such as a missing field; it explains them best.
    details = min(error.errors(), key=lambda entry: entry["type"] not in UNKNOWN_KEY)
    kind = details["type"]
    path = _keys_only(details["loc"], tree, absent=kind in ("missing", *UNKNOWN_KEY))
    name = visible(".".join(path))[:MAX_SHOWN]
    reason = details["msg"]
    if kind in UNKNOWN_KEY:
        message = f"unknown key {name}{_nearest(path, root)}"
    elif kind == "missing":
        message = f"{name} is missing"
    elif kind == "value_error":  # raised by our own validators, which say what was given
        message = f"{name} {reason.removeprefix('Value error, ')}".lstrip()
    else:
        message = f"{name} is {_abbreviated(details['input'])}: {reason[0].lower()}{reason[1:]}"
    return Mistake(path, one_line(visible(message), limit=1000))


def _abbreviated(value: Any) -> str:
    """A value as Python writes it; the beginning of a long one."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _keys_only(loc: Sequence[str | int], tree: Any, *, absent: bool) -> tuple[str, ...]:
    """The path of an error, without the names of union members that pydantic adds to it.

    Args:
        loc: The path as pydantic gives it.
        tree: What was validated.
        absent: Whether the last part is a key that the tree lacks.
    """
    path = []
    last = len(loc) - 1
    for index, key in enumerate(loc):
        if isinstance(tree, dict) and (key in tree or (absent and index == last)):
            path.append(str(key))
            tree = tree.get(key)
        elif isinstance(tree, list) and isinstance(key, int) and key < len(tree):
            path.append(str(key))
            tree = tree[key]
    return tuple(path)


def _nearest(path: Sequence[str], root: type[BaseModel]) -> str:
    """A hint: the known key most similar to the last one of the path, or else all known keys."""
    *parents, unknown = path
    sections = {root}
    for key in parents:
        fields = [section.model_fields[key] for section in sections if key in section.model_fields]
        nested = {part for field in fields for part in _sections_in(field.annotation)}
        sections = nested or sections  # a mapping of free keys has no sections of its own

    known = sorted({field for section in sections for field in section.model_fields} - {unknown})
    near = difflib.get_close_matches(unknown[:MAX_SHOWN], known, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; expected some of {', '.join(known)}"


def _sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that a field's type allows."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _sections_in(part)

"""YAML and JSON that may come from a stranger, read as plain values within limits.

The size, the depth and the number of values of a document are limited; an alias counts each time it
is used. A key may occur only once in a mapping, and numbers are finite and of a reasonable length.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from ofbnas.errors import InputError, one_line
from ofbnas.files.untrusted import check_regular, visible

MAX_BYTES = 4 * 2**20
MAX_DEPTH = 32
MAX_VALUES = 200_000
MAX_DIGITS = 40
MAX_SHOWN = 80  # characters of a key in an error message

KeyPath = tuple[str, ...]  # the keys that lead to a value
Lines = dict[KeyPath, int]

_NUMBER_TAGS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


def read_text(path: Path, expected: str, limit: int = MAX_BYTES) -> str:
    """A text file of UTF-8.

    Args:
        path: The file.
        expected: What it should be, for messages, such as "a .yaml file".
        limit: Bytes that it may have.

    Raises:
        FileNotFoundError: The file does not exist.
        InputError: It is too large, not a regular file, or not text.
    """
    check_regular(path)
    name = visible(path)
    try:
        with path.open("rb") as file:
            raw = file.read(limit + 1)  # the size on disk may change, so what was read is measured
        if len(raw) > limit:
            raise InputError(f"{name}: has more than {limit:,} bytes; expected {expected}")
        return raw.decode("utf-8")
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        reason = one_line(error)
        raise InputError(
            f"{name}: cannot be read as text ({reason}); expected {expected}"
        ) from None


def parse_json(text: str, where: object, limit: int = MAX_BYTES) -> Any:
    """The value of a JSON document.

    Args:
        text: The document.
        where: What it was read from, for messages.
        limit: Characters that it may have.

    Raises:
        InputError: It is not JSON, or beyond the limits.
    """
    source = visible(where)
    too_deep = InputError(f"{source}: is not JSON that can be read (nested too deep)")
    if len(text) > limit:
        raise InputError(f"{source}: has more than {limit:,} characters of JSON")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_constant=_refuse_constant,
            parse_int=_int_of,
            parse_float=_float_of,
        )
    except RecursionError:
        raise too_deep from None
    except ValueError as error:
        reason = visible(one_line(error))
        raise InputError(f"{source}: is not JSON that can be read ({reason})") from None
    if _depth(value) > MAX_DEPTH:
        raise too_deep
    return value


def parse_yaml(text: str, where: object) -> tuple[Any, Lines]:
    """The value of a YAML document, and the line of each of its keys.

    Raises:
        InputError: It is not YAML, or beyond the limits.
    """
    source = visible(where)
    if len(text) > MAX_BYTES:
        raise InputError(f"{source}: has more than {MAX_BYTES:,} characters of YAML")

    has_lines = "\n" in text
    try:
        node, value = _load(text, source, has_lines)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = ""
        if mark is not None and has_lines:
            line = f" line {mark.line + 1}"
        problem = getattr(error, "problem", None) or "cannot be parsed"
        reason = visible(one_line(problem))
        raise InputError(f"{source}{line}: not valid YAML ({reason})") from None
    except RecursionError:
        raise InputError(f"{source}: not valid YAML (nested too deep)") from None
    except InputError:
        raise
    # What PyYAML raises for values that it cannot make, such as a date with month 13.
    except (ValueError, OverflowError, TypeError, AttributeError, LookupError) as error:
        reason = visible(one_line(error))
        raise InputError(f"{source}: not valid YAML ({reason})") from None
    return value, dict(_key_lines(node, ()))


def _load(
    text: str,
    source: str,
    has_lines: bool,
) -> tuple[yaml.Node | None, Any]:
    """The root of a YAML document, and its value, which is built only from checked nodes."""
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None, None
        _check_nodes(root, source, has_lines)
        return root, loader.construct_document(root)
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, which stops as soon as nodes are nested too deep."""

    depth = 0

    def compose_node(
        self,
        parent: yaml.Node | None,
        index: Any,
    ) -> yaml.Node | None:
        """The next node, with those below it.

        Raises:
            RecursionError: It is nested too deep.
        """
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise RecursionError
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def _check_nodes(root: yaml.Node, source: str, has_lines: bool) -> None:
    """Check a document before its values are built.

    Args:
        root: The document.
        source: What it was read from, for messages.
        has_lines: Whether it has several lines, so that messages name them.

    Raises:
        InputError: A key occurs twice, a number is too long, or values are too many or nested too
            deep; an alias counts each time it is used.
    """
    # A small document of aliases to aliases stands for billions of values, so the walk is limited
    # by its own count.
    pending = [(root, 0)]
    count = 0
    while pending:
        node, depth = pending.pop()
        count += 1
        if count > MAX_VALUES or depth > MAX_DEPTH:
            raise InputError(
                f"{source}: has more than {MAX_VALUES:,} values, or is nested too deep, "
                "aliases included"
            )

        line = source
        if has_lines:
            line = f"{source} line {node.start_mark.line + 1}"

        below: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            _check_keys(node, line)
            for key, value in node.value:
                below += [key, value]
        elif isinstance(node, yaml.SequenceNode):
            below += node.value
        elif node.tag in _NUMBER_TAGS and len(node.value) > MAX_DIGITS:
            length = len(node.value)
            raise InputError(
                f"{line}: has a number of {length:,} characters; expected at most {MAX_DIGITS}"
            )
        pending += [(part, depth + 1) for part in below]


def _check_keys(node: yaml.MappingNode, line: str) -> None:
    """Check that no key occurs twice in a mapping: YAML would silently keep the last one.

    Raises:
        InputError: One does.
    """
    counts = Counter[str]()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            counts[key.value] += 1
    for name, count in counts.most_common(1):
        if count > 1:
            key = visible(name)[:MAX_SHOWN]
            raise InputError(f"{line}: has the key {key} twice")


def _key_lines(
    node: yaml.Node | None,
    path: KeyPath,
) -> Iterator[tuple[KeyPath, int]]:
    """The path of each key below a node, and its line."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            key_path = (*path, str(key.value))
            yield key_path, key.start_mark.line + 1
            yield from _key_lines(value, key_path)


def _unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, none of whose keys may occur twice."""
    result = dict(pairs)
    if len(result) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        ((repeated, _),) = counts.most_common(1)
        raise ValueError(f"the key {repeated[:MAX_SHOWN]} occurs twice")
    return result


def _refuse_constant(name: str) -> None:
    """Refuse NaN and Infinity, which Python accepts although JSON does not have them."""
    raise ValueError(f"{name} is not a number of JSON")


def _int_of(text: str) -> int:
    """A whole number of reasonable length."""
    # Python's conversion takes quadratic time, so the length is checked first.
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number has {len(text):,} digits")
    return int(text)


def _float_of(text: str) -> float:
    """A finite number of reasonable length."""
    value = float(text)
    is_long = len(text) > 10 * MAX_DIGITS
    if is_long or not math.isfinite(value):
        raise ValueError(f"the number {text[:MAX_DIGITS]} is too large")
    return value


def _depth(value: Any) -> int:
    """How deep a value is nested; counted up to MAX_DEPTH + 1."""
    depth = 0
    level = [value]
    while level and depth <= MAX_DEPTH:
        depth += 1
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += item.values()
            elif isinstance(item, list):
                below += item
        level = below
    return depth

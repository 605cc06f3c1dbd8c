"""A study as YAML with a sentence about each field, which is that of the field's docstring."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic import BaseModel

from ofbnas.config.study import StudyConfig

WIDTH = 100  # of a line
_SENTENCE = re.compile(r".*?\.(?=\s|$)", re.DOTALL)


def commented(tree: Mapping[str, Any]) -> str:
    """Fields of a study as YAML, each below its sentence.

    Args:
        tree: The fields that are to be written, as a YAML file would give them.

    Raises:
        pydantic.ValidationError: They are not those of a study.
    """
    return "\n".join(_lines(tree, StudyConfig.model_validate(tree), "")) + "\n"


def sentence(description: str) -> str:
    """The first sentence of a field's docstring.

    >>> sentence("Folder of the images, such as data/. It must exist.")
    'Folder of the images, such as data/.'
    """
    found = _SENTENCE.match(description)
    return " ".join((found[0] if found else description).split())


def _lines(tree: Mapping[str, Any], section: BaseModel, indent: str) -> Iterator[str]:
    """The lines of a section."""
    fields = type(section).model_fields
    for key, value in tree.items():
        within = getattr(section, key)
        yield from _comment(sentence(fields[key].description or ""), indent)
        if isinstance(value, Mapping) and isinstance(within, BaseModel) and len(value) > 1:
            yield f"{indent}{key}:"
            yield from _lines(value, within, f"{indent}  ")
        elif isinstance(value, Mapping) and len(value) > 1:
            yield f"{indent}{key}:"
            for name, part in value.items():
                yield f"{indent}  {_inline({name: part})}"
        else:
            yield f"{indent}{_inline({key: value})}"
        if not indent:
            yield ""


def _comment(text: str, indent: str) -> list[str]:
    """A text as lines that YAML ignores."""
    start = f"{indent}# "
    return textwrap.wrap(text, WIDTH, initial_indent=start, subsequent_indent=start)


def _inline(pair: Mapping[str, Any]) -> str:
    """A key and its value on one line.

    >>> _inline({"budget": {"gmacs_share": 0.5}})
    'budget: {gmacs_share: 0.5}'
    """
    ((key, value),) = pair.items()
    (name,) = yaml.safe_dump([key]).splitlines()
    written = yaml.safe_dump(
        [value], default_flow_style=True, sort_keys=False, allow_unicode=True, width=float("inf")
    )
    return f"{name.removeprefix('- ')}: {written.strip()[1:-1]}"

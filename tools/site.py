"""What mkdocs does beside rendering the pages: references made from the code, and links to files.

mkdocs.yml names this file as a hook.
"""

from __future__ import annotations

import os
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic import BaseModel
from pydantic_core import PydanticUndefined, to_jsonable_python
from typer.testing import CliRunner

import ofbnas
from ofbnas.cli import app
from ofbnas.config.study import StudyConfig

ROOT = Path(__file__).parent.parent
LEADS_OUT = re.compile(r"\[([^\]]*)\]\(((?:\.\./)+[^)#\s]+)[^)]*\)")
NO_SECTION = {"Span"}  # written as a plain number, which fields of this kind explain themselves


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the references, which are in no folder."""
    pages = {"cli": commands_page(), "python": python_page(), "yaml": fields_page()}
    for name, text in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Name files outside of docs/ instead of linking to them: the site does not have them.

    Raises:
        PluginError: There is no such file.
    """

    def named(link: re.Match[str]) -> str:
        folder = (Path(config.docs_dir) / page.file.src_uri).parent
        target = Path(os.path.normpath(folder / link[2]))
        if not target.exists():
            raise PluginError(f"{page.file.src_uri}: {link[2]} does not exist")
        path = f"`{target.relative_to(ROOT)}`"
        return path if link[1] in (path, target.name) else f"{link[1]} ({path})"

    return LEADS_OUT.sub(named, markdown)


def commands_page() -> str:
    """What each command prints for --help."""
    lines = ["# Commands", ""]
    for words in sorted(commands(typer.main.get_command(app))):
        shown = CliRunner().invoke(app, [*words, "--help"], prog_name="ofbnas")
        lines += [
            f"## {' '.join(['ofbnas', *words])}",
            "",
            "```text",
            shown.output.strip(),
            "```",
            "",
        ]
    return "\n".join(lines)


def commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of a command and of all below it."""
    yield words
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*words, name))


def python_page() -> str:
    """Everything public, from the docstrings."""
    lines = ["# Python", "", f"`import ofbnas` has these names; version {ofbnas.__version__}.", ""]
    for name in ofbnas.__all__:
        lines += [f"::: ofbnas.{name}", ""]
    return "\n".join(lines)


def fields_page() -> str:
    """All fields of a study, from their docstrings."""
    lines = [
        "# Fields of a study",
        "",
        "`ofbnas study schema` prints the same as a JSON Schema, for editors. A field without a "
        "default must be given, where its section is.",
    ]
    waiting: list[type[BaseModel]] = [StudyConfig]
    seen: set[type[BaseModel]] = set()
    while waiting:
        section = waiting.pop(0)
        if section in seen:
            continue
        seen.add(section)
        lines += ["", *_section(section)]
        for field in section.model_fields.values():
            waiting += [part for part in sections_in(field.annotation) if part not in seen]
    return "\n".join(lines)


def _section(section: type[BaseModel]) -> Iterator[str]:
    """The fields of a section as a table."""
    yield from (f"## {section.__name__}", "")
    yield from (" ".join((section.__doc__ or "").split()), "")
    yield from ("| field | default | meaning |", "|---|---|---|")
    for name, field in section.model_fields.items():
        meaning = " ".join((field.description or "").split())
        parts = [
            f"[{part.__name__}](#{part.__name__.lower()})" for part in sections_in(field.annotation)
        ]
        if parts:
            meaning += f" Section: {', '.join(parts)}."
        default = _default(field.get_default(call_default_factory=True))
        cells = [cell.replace("|", "\\|") for cell in (f"`{name}`", default, meaning)]
        yield f"| {' | '.join(cells)} |"


def sections_in(annotation: Any) -> list[type[BaseModel]]:
    """The sections that a field may be, in their order."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [] if annotation.__name__ in NO_SECTION else [annotation]
    found = []
    for part in typing.get_args(annotation):
        if typing.get_origin(annotation) in (typing.Literal,):
            break
        found += [section for section in sections_in(part) if section not in found]
    return found


def _default(value: Any) -> str:
    """A default as YAML has it; empty where there is none."""
    if value is PydanticUndefined:
        return ""
    plain = to_jsonable_python(value)
    if isinstance(value, BaseModel) and isinstance(plain, dict):
        return "that of its fields"
    written = yaml.safe_dump([plain], default_flow_style=True, sort_keys=False, width=1000)
    return f"`{written.strip()[1:-1]}`"

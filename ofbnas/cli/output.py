"""How results are printed: a table for people, JSON for programs, both on standard output."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from ofbnas.files.untrusted import visible
from ofbnas.table.units import is_cost, with_unit

if TYPE_CHECKING:
    from rich.console import JustifyMethod

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Study = Annotated[
    Path,
    typer.Argument(
        help="The study: a YAML file, or the name of one that comes with ofbnas, such as digits.",
        metavar="STUDY.yaml|NAME",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Change a field; may be repeated."),
]
Address = Annotated[
    str | None,
    typer.Option(
        envvar="RAY_ADDRESS",
        metavar="HOST:PORT",
        help='Ray cluster to use, or "auto" for the one of this machine; by default none.',
    ),
]
MISSING = "-"


def on_cluster(address: str | None) -> None:
    """Choose the cluster that Ray connects to, if any.

    To be called before Ray is imported, since Ray reads the variable only then.
    """
    if address is None:
        os.environ.pop("RAY_ADDRESS", None)
    else:
        os.environ["RAY_ADDRESS"] = address


def say(text: object = "", *, err: bool = False) -> None:
    """Print text with control characters escaped: it may contain what a stranger wrote."""
    typer.echo(visible(text, lines=True), err=err)


def print_json(value: Any) -> None:
    """Print a value as one line of JSON, in ASCII."""
    typer.echo(json.dumps(value, allow_nan=False, default=str))


def print_table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows under their columns' names, numbers aligned to the right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        values = [row.get(column) for row in rows]
        numeric = all(isinstance(value, int | float | None) for value in values)
        justify: JustifyMethod = "right" if numeric else "left"
        table.add_column(plain(column), justify=justify, overflow="fold")
    for row in rows:
        cells = [cell(column, row.get(column)) for column in columns]
        table.add_row(*map(plain, cells))

    console = Console()
    if not console.is_terminal:
        # A pipe has no width. Rich would fold lines at 80 characters, where grep misses matches.
        console = Console(width=200)
    console.print(table)


def plain(text: str) -> Text:
    """Text for rich: square brackets are not markup, and control characters are escaped."""
    return Text(visible(text))


def cell(column: str, value: Any) -> str:
    """A value as text: costs with their unit, accuracies with two decimals, others with four digits."""
    if value is None:
        return MISSING
    if is_cost(column):
        return with_unit(column, value)
    if isinstance(value, float):
        if "top" in column:
            return f"{value:.2f}"
        return f"{value:.4g}"
    if isinstance(value, int) and abs(value) >= 10_000:
        return f"{value:,}"
    return str(value)

"""How results are printed: a table for people, JSON for programs, both on standard output."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from ofbnas.cli.columns import GAP, Printed, fitting, wrapped_cell, wrapped_heading
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
    """Print text with control characters escaped: it may contain what a stranger wrote.

    On a terminal, a single line wraps at words.
    """
    shown = visible(text, lines=True)
    stream = sys.stderr if err else sys.stdout
    if stream.isatty() and "\n" not in shown:
        width = os.get_terminal_size(stream.fileno()).columns
        # A terminal may not know its width, which is 0 then.
        shown = fill(shown, width or sys.maxsize, break_long_words=False, break_on_hyphens=False)
    typer.echo(shown, err=err)


def say_at_once(what: str) -> None:
    """Tell a person what takes the next seconds; a program that reads the output is told nothing.

    Importing torch or starting Ray takes seconds, in which a terminal would stay empty.
    """
    if sys.stderr.isatty():
        say(f"{what} ...", err=True)


def counted(count: int, noun: str) -> str:
    """A number with its noun, in the plural unless it is one.

    >>> counted(1, "conflict"), counted(1000, "row")
    ('1 conflict', '1,000 rows')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def print_json(value: Any) -> None:
    """Print a value as one line of JSON, in ASCII."""
    typer.echo(json.dumps(value, allow_nan=False, default=str))


def print_table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows under their columns' names, numbers aligned to the right.

    On a terminal, the last columns are left out where not all of them fit.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    printed = []
    for column in columns:
        values = [row.get(column) for row in rows]
        numeric = all(isinstance(value, int | float | None) for value in values)
        cells = [visible(cell(column, value)) for value in values]
        printed.append(Printed(visible(column), cells, whole=numeric))

    console = Console()
    if not console.is_terminal:
        # A pipe has no width, and grep would miss a match that is split.
        console = Console(width=sum(column.natural + GAP for column in printed))
    widths = fitting(printed, console.width)

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, GAP - 1, 0, 0))
    for part, width in zip(printed, widths, strict=False):
        justify: JustifyMethod = "right" if part.whole else "left"
        heading = Text(wrapped_heading(part.heading, width))
        table.add_column(heading, justify=justify, overflow="fold", width=width)
    for texts in zip(*(column.cells for column in printed[: len(widths)]), strict=True):
        table.add_row(*map(Text, map(wrapped_cell, texts, widths)))

    console.print()
    console.print(table)
    console.print()
    left_out = [column.heading for column in printed[len(widths) :]]
    if left_out:
        say(
            f"Not shown here: {', '.join(left_out)}. A wider terminal, a pipe or --json shows them."
        )


def plain(text: str) -> Text:
    """Text for rich: square brackets are not markup, and control characters are escaped."""
    return Text(visible(text))


def cell(column: str, value: Any) -> str:
    """A value as text: costs with their unit, accuracies with two decimals, others with four digits.

    Large numbers are whole.
    """
    if value is None:
        return MISSING
    if is_cost(column):
        return with_unit(column, value)
    if isinstance(value, int | float) and abs(value) >= 10_000:
        return f"{value:,.0f}"
    if isinstance(value, float):
        return f"{value:.2f}" if "top" in column else f"{value:.4g}"
    return str(value)

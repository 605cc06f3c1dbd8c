"""The command line: one file per noun. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from ofbnas.cli import arch, doctor, evaluate, front, search, space, study, table
from ofbnas.errors import InputError, NotFiniteError

app = typer.Typer(
    name="ofbnas",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for noun in (study, front, arch, table, space):
    app.add_typer(noun.app)
app.command("search")(search.search)
app.command("evaluate")(evaluate.evaluate)
app.command("doctor")(doctor.doctor)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"ofbnas {version('ofbnas')}")
        raise typer.Exit


@app.callback()
def ofbnas(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Find a smaller Vision Transformer inside a cost budget, and compare what was found.

    Example: ofbnas study run studies/digits.yaml
    """


def main() -> None:
    """Run the command line; exits with 0, 1 where something failed, 2 where the input was wrong, 130 on Ctrl-C."""
    try:
        app()
    except (InputError, NotFiniteError, OSError) as error:
        if "--debug" in sys.argv:
            raise
        typer.echo(f"ofbnas: {error}", err=True)
        raise SystemExit(2 if isinstance(error, InputError) else 1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None

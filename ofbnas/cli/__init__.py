"""The command line: one file per noun. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ofbnas.cli import (
    arch,
    bench,
    compress,
    doctor,
    evaluate,
    finetune,
    front,
    search,
    space,
    study,
    table,
)  # fmt: skip
from ofbnas.cli.interrupts import answered
from ofbnas.cli.output import say
from ofbnas.errors import ExportError, InputError, NotFiniteError, WorkerLostError
from ofbnas.files.untrusted import visible

app = typer.Typer(
    name="ofbnas",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for noun in (study, front, arch, table, space):
    app.add_typer(noun.app)
app.command("search")(search.search)
app.command("compress")(compress.compress)
app.command("finetune")(finetune.finetune)
app.command("evaluate")(evaluate.evaluate)
app.command("bench")(bench.bench)
app.command("doctor")(doctor.doctor)


def _print_version(requested: bool) -> None:
    if not requested:
        return
    # Imported here, since only --version needs it, and it takes longer than the rest of --help.
    from importlib.metadata import version

    say(f"ofbnas {version('ofbnas')}")
    raise typer.Exit


@app.callback()
def ofbnas(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Find a smaller Vision Transformer within a cost budget, and compare the results.

    Example: ofbnas study run studies/digits.yaml
    """


def main() -> None:
    """Run the command line.

    Exits with 1 if something failed, with 2 if the input is invalid, and with 130 after Ctrl-C.
    """
    try:
        with answered():
            app()
    except (InputError, ExportError, NotFiniteError, WorkerLostError, OSError) as error:
        # Read here rather than in `ofbnas`, whose parameters are gone when a command fails.
        if "--debug" in sys.argv:
            raise
        say(f"ofbnas: {visible(error)}", err=True)
        code = 2 if isinstance(error, InputError) else 1
        raise SystemExit(code) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None

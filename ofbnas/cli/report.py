"""ofbnas study report: a page about a study or another table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ofbnas.cli.output import say
from ofbnas.cli.process import collect_as_usual


def report(
    table: Annotated[
        Path,
        typer.Argument(
            help="A study's folder, or any other table: of ofbnas search or compress, pulled, or a "
            ".parquet file.",
            metavar="TABLE",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Page to write; by default report.html in the table's folder."
        ),
    ] = None,
    serve: Annotated[
        bool,
        typer.Option(
            "--serve", help="Serve the page on this machine and keep it up to date, until Ctrl-C."
        ),
    ] = False,
    port: Annotated[
        int | None, typer.Option(help="Port to serve on; by default a free one.")
    ] = None,
    connect: Annotated[
        bool,
        typer.Option("--connect", help="Also read the storage that sweep.storage names."),
    ] = False,
) -> None:
    """Write an HTML page about a study or another table, or serve it.

    A page that is served follows a running study or search. Only the table's folder is read; with
    --connect, also the database or the file that a study's sweep.storage names. The page says what a
    table without a study lacks.

    Example: ofbnas study report runs/digits --serve
    """
    from ofbnas.errors import InputError
    from ofbnas.study.report import Server, contents, stamp, study_of, write_page
    from ofbnas.study.tuning.journal import no_journal, read_journal
    from ofbnas.table.layout import home, is_study

    folder = home(table)

    def page() -> dict[str, Any]:
        if table == folder and is_study(folder):
            config = study_of(folder)
            return contents(folder, config, read_journal(config, folder, connect=connect))
        return contents(table, None, no_journal())

    if serve and out is not None:
        raise InputError(
            f"--out {out}: a page that is served is not written; leave out --serve or --out"
        )
    if not serve and port is not None:
        raise InputError(
            f"--port {port}: a page that is written has no port; add --serve or leave out --port"
        )
    if not serve:
        out = out or folder / ("report.html" if table == folder else f"{table.stem}.html")
        written = page()
        write_page(written, out)
        say(str(out))
        _say_what_is_left_out(written)
        return
    collect_as_usual()
    with Server(page, lambda: stamp(table, connect=connect), port or 0) as server:
        # Made now, so that a study that cannot be read is reported here and not in the browser.
        first = server.current()
        say(server.url)
        _say_what_is_left_out(first)
        say("press Ctrl-C to stop", err=True)
        server.serve_forever()


def _say_what_is_left_out(page: Mapping[str, Any]) -> None:
    """Report what a page lacks because the storage was not read."""
    if page["left_out"] is not None:
        say(page["left_out"], err=True)

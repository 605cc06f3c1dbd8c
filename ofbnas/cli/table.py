"""ofbnas table: share architecture tables."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ofbnas.cli.output import Json, print_json

if TYPE_CHECKING:
    from ofbnas.transfer import Moved

app = typer.Typer(name="table", no_args_is_help=True, help="Share architecture tables.")


class WeightsOf(StrEnum):
    """Whose weights go along with a table."""

    ALL = "all"
    FRONT = "front"
    NONE = "none"


@app.command()
def push(
    source: Annotated[str, typer.Argument(help="A study's folder, or a table's folder or .parquet file.")],
    target: Annotated[
        str, typer.Argument(help="A folder, file:///..., s3://BUCKET/PREFIX or hf://datasets/OWNER/NAME.")
    ],
    weights: Annotated[
        WeightsOf, typer.Option(help="Whose weights go along: those of all rows, of the Pareto front's, or of none.")
    ] = WeightsOf.FRONT,
    as_json: Json = False,
) -> None:
    """Share a table: all rows in one file, history, weights, a card and a manifest with the hash of each file.

    What was sent before an interruption is not sent again. Nothing is deleted at the target.

    Example: ofbnas table push runs/digits hf://datasets/OWNER/digits-architectures
    """
    from ofbnas.share import push as push_table

    _print(target, push_table(source, target, weights=weights.value, tell=_tell), "sent", as_json)


@app.command()
def pull(
    source: Annotated[
        str, typer.Argument(help="What push takes as TARGET, or https://HOST/FOLDER where manifest.json lies.")
    ],
    target: Annotated[Path, typer.Argument(help="The folder to write; every command reads it then.")],
    max_size: Annotated[float, typer.Option(help="Refuse a table with more GB than this.", metavar="GB", min=0)] = 20,
    as_json: Json = False,
) -> None:
    """Get a shared table; each file is checked against the manifest before it has its name.

    What arrived before an interruption is not fetched again.

    Example: ofbnas table pull hf://datasets/OWNER/digits-architectures digits
    """
    from ofbnas.share import pull as pull_table
    from ofbnas.transfer import GB

    _print(str(target), pull_table(source, target, max_size=int(max_size * GB), tell=_tell), "fetched", as_json)


def _tell(line: str) -> None:
    typer.echo(line, err=True)


def _print(target: str, moved: Moved, how: str, as_json: bool) -> None:
    from ofbnas.manifest import size_text

    if as_json:
        print_json(
            {
                "target": target,
                "files": moved.files,
                "bytes": moved.size,
                f"{how}_files": moved.moved_files,
                f"{how}_bytes": moved.moved_size,
            }
        )
    else:
        typer.echo(
            f"{target}: {moved.files} files, {size_text(moved.size)}; "
            f"{moved.moved_files} files, {size_text(moved.moved_size)} {how} now"
        )

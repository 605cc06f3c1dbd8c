"""ofbnas table: what is in architecture tables, whether it is true, several as one, and sharing them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ofbnas.cli.output import Json, print_json, print_table

if TYPE_CHECKING:
    from ofbnas.sharing.transfer import Moved

app = typer.Typer(name="table", no_args_is_help=True, help="Describe, check, merge and share architecture tables.")
Table = Annotated[Path, typer.Argument(help="A study's folder or a .parquet file.", metavar="TABLE")]


@app.command()
def describe(table: Table, as_json: Json = False) -> None:
    """Print the columns of a table: what they mean, how many rows have them, and their ranges.

    Example: ofbnas table describe runs/digits
    """
    import pandas as pd

    from ofbnas.schema import SCHEMA, meaning
    from ofbnas.table import read_table

    rows = read_table(table)
    found = []
    for name in rows.columns:
        values = rows[name].dropna()
        ordered = pd.api.types.is_numeric_dtype(values) and len(values) > 0
        found.append(
            {
                "column": name,
                "rows": len(values),
                "least": float(values.min()) if ordered else None,
                "most": float(values.max()) if ordered else None,
                "unit": meaning(name)[1] if name in SCHEMA.names else None,
                "meaning": meaning(name)[0] if name in SCHEMA.names else None,
            }
        )
    if as_json:
        print_json({"rows": len(rows), "columns": found})
        return
    print_table(["column", "rows", "least", "most", "unit", "meaning"], found)
    typer.echo(f"{len(rows)} rows, {rows['arch_id'].nunique()} architectures")


@app.command()
def validate(table: Table, as_json: Json = False) -> None:
    """Check a table from anyone: types, ranges, ids, sizes, costs and weights. Exits with 1 if something is not true.

    Example: ofbnas table validate runs/digits
    """
    from ofbnas.validate import validate

    checked = validate(table)
    if as_json:
        counts = {name: value for name, value in vars(checked).items() if name != "problems"}
        print_json(counts | {"problems": [vars(problem) for problem in checked.problems]})
    else:
        for problem in checked.problems:
            typer.echo(str(problem))
        typer.echo(
            f"{len(checked.problems)} problems in {checked.rows} rows; {checked.architectures} architectures made, "
            f"{checked.weights} files of weights checked, {checked.absent} not here"
        )
    raise typer.Exit(1 if checked.problems else 0)


@app.command()
def merge(
    tables: Annotated[list[Path], typer.Argument(help="Studies' folders or .parquet files.", metavar="TABLE...")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder to write.")],
    as_json: Json = False,
) -> None:
    """Write several tables as one, each trial once, with the weights that are there.

    Example: ofbnas table merge runs/a runs/b --out runs/both
    """
    from ofbnas.merge import merge

    merged = merge(tables, out)
    if as_json:
        print_json(vars(merged))
        return
    for conflict in merged.conflicts:
        typer.echo(f"conflict, all rows kept: {conflict}", err=True)
    typer.echo(f"{merged.rows} rows in {out}; {merged.duplicates} were there twice, {len(merged.conflicts)} conflicts")


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
    from ofbnas.sharing.share import push as push_table

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
    from ofbnas.sharing.share import pull as pull_table
    from ofbnas.sharing.transfer import GB

    _print(str(target), pull_table(source, target, max_size=int(max_size * GB), tell=_tell), "fetched", as_json)


def _tell(line: str) -> None:
    typer.echo(line, err=True)


def _print(target: str, moved: Moved, how: str, as_json: bool) -> None:
    from ofbnas.sharing.manifest import size_text

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

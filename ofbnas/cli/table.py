"""ofbnas table: what is in architecture tables, whether it is true, and several as one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ofbnas.cli.output import Json, print_json, print_table

app = typer.Typer(name="table", no_args_is_help=True, help="Describe, check and merge architecture tables.")
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

"""ofbnas table: describe, check, merge and share architecture tables."""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofbnas.cli.output import Json, counted, print_json, print_table, say

if TYPE_CHECKING:
    from ofbnas.table.sharing.transfer import Moved

app = typer.Typer(
    name="table", no_args_is_help=True, help="Describe, check, merge and share architecture tables."
)
Table = Annotated[
    Path, typer.Argument(help="A study's folder or a .parquet file.", metavar="TABLE")
]
DESCRIPTION = ["column", "rows", "least", "most", "unit", "meaning"]


@app.command()
def describe(table: Table, as_json: Json = False) -> None:
    """Print the columns of a table.

    Each with its meaning and unit, the number of rows that have a value, and the range.

    Example: ofbnas table describe runs/digits
    """
    import pandas as pd

    from ofbnas.table.columns import COLUMNS
    from ofbnas.table.store import read_table

    rows = read_table(table)
    columns: list[dict[str, Any]] = []
    for name in rows.columns:
        values = rows[name].dropna()
        entry: dict[str, Any] = dict.fromkeys(DESCRIPTION)
        entry["column"] = name
        entry["rows"] = len(values)
        if pd.api.types.is_numeric_dtype(values) and len(values) > 0:
            entry["least"] = float(values.min())
            entry["most"] = float(values.max())
        # Swept fields are not declared, nor are columns of a newer version.
        declared = COLUMNS.get(name)
        if declared is not None:
            entry["unit"] = declared.unit
            entry["meaning"] = declared.meaning
        columns.append(entry)
    if as_json:
        print_json({"rows": len(rows), "columns": columns})
        return
    print_table(DESCRIPTION, columns)
    architectures = rows["arch_id"].nunique()
    say(f"{counted(len(rows), 'row')}, {counted(architectures, 'architecture')}")


@app.command()
def validate(table: Table, as_json: Json = False) -> None:
    """Check a table, your own or someone else's.

    Types, ranges, ids, sizes, costs and weights are checked. Exits with 1 if anything is wrong.

    Example: ofbnas table validate runs/digits
    """
    from ofbnas.study.validate import validate

    result = validate(table)
    if as_json:
        problems = [vars(problem) for problem in result.problems]
        print_json(vars(result) | {"problems": problems})
    else:
        for problem in result.problems:
            say(str(problem))
        say(
            f"{counted(len(result.problems), 'problem')} in {counted(result.rows, 'row')}; "
            f"{counted(result.architectures, 'architecture')} made, "
            f"{counted(result.weights, 'file')} of weights checked, {result.absent} not here"
        )
    raise typer.Exit(1 if result.problems else 0)


@app.command()
def merge(
    tables: Annotated[
        list[Path], typer.Argument(help="Studies' folders or .parquet files.", metavar="TABLE")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder to write.")],
    as_json: Json = False,
) -> None:
    """Merge several tables into one.

    Each trial is kept once, with its weights if one of the tables has them.

    Example: ofbnas table merge runs/a runs/b --out runs/both
    """
    from ofbnas.table.merge import merge

    merged = merge(tables, out)
    if as_json:
        print_json(vars(merged))
        return
    for conflict in merged.conflicts:
        say(f"conflict, all rows kept: {conflict}", err=True)
    say(
        f"{counted(merged.rows, 'row')} in {out}; there twice: {merged.duplicates}; "
        f"{counted(len(merged.conflicts), 'conflict')}"
    )


class WeightsOf(StrEnum):
    """Whose weights are uploaded with a table."""

    ALL = "all"
    FRONT = "front"
    NONE = "none"


@app.command()
def push(
    source: Annotated[
        str,
        typer.Argument(
            help="A study's folder, or a table's folder or .parquet file.", metavar="SOURCE"
        ),
    ],
    target: Annotated[
        str,
        typer.Argument(
            help="A folder, file:///..., s3://BUCKET/PREFIX or hf://datasets/OWNER/NAME.",
            metavar="TARGET",
        ),
    ],
    weights: Annotated[
        WeightsOf,
        typer.Option(help="Whose weights to upload: of all rows, of the Pareto front, or none."),
    ] = WeightsOf.FRONT,
    as_json: Json = False,
) -> None:
    """Upload a table with its history, weights and a card.

    All rows are in one file, and a manifest has the hash of each file. Files uploaded before an
    interruption are not uploaded again. Nothing is deleted at the target.

    Example: ofbnas table push runs/digits hf://datasets/OWNER/NAME
    """
    from ofbnas.table.sharing.share import push as push_table

    moved = push_table(source, target, weights=weights.value, notify=_say_progress)
    _print_moved(target, moved, "sent", as_json)


@app.command()
def pull(
    source: Annotated[
        str,
        typer.Argument(
            help="What push takes as TARGET, or https://HOST/FOLDER that contains manifest.json.",
            metavar="SOURCE",
        ),
    ],
    target: Annotated[
        Path,
        typer.Argument(help="Folder to write, which all commands can then read.", metavar="TARGET"),
    ],
    max_size: Annotated[
        float, typer.Option(help="Refuse a table that is larger than this.", metavar="GB", min=0)
    ] = 20,
    as_json: Json = False,
) -> None:
    """Download a shared table and verify its files.

    Each file is checked against the manifest before it gets its name. Files downloaded before an
    interruption are not downloaded again. A web server must send at least 10 kB per second on
    average, after the first minute of each file.

    Example: ofbnas table pull hf://datasets/OWNER/NAME digits
    """
    from ofbnas.table.sharing.place import GB
    from ofbnas.table.sharing.share import pull as pull_table

    # typer reads inf and nan as numbers.
    if not math.isfinite(max_size):
        raise typer.BadParameter(f"{max_size} is not a number of GB", param_hint="--max-size")
    limit = int(max_size * GB)
    moved = pull_table(source, target, max_size=limit, notify=_say_progress)
    _print_moved(str(target), moved, "fetched", as_json)


def _say_progress(line: str) -> None:
    """Print progress to standard error, since standard output is for the result."""
    say(line, err=True)


def _print_moved(target: str, moved: Moved, how: str, as_json: bool) -> None:
    """Print the size of a table, and of the part that was sent or fetched in this run."""
    from ofbnas.table.sharing.manifest import size_text

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
        return
    say(
        f"{target}: {counted(moved.files, 'file')}, {size_text(moved.size)}; "
        f"{counted(moved.moved_files, 'file')}, {size_text(moved.moved_size)} {how} now"
    )

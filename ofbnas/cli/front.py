"""ofbnas front: Pareto fronts of tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofbnas.cli.output import Json, print_json, print_table

if TYPE_CHECKING:
    import pandas as pd

app = typer.Typer(name="front", no_args_is_help=True, help="Show and plot Pareto fronts of tables.")
Tables = Annotated[list[Path], typer.Argument(help="Studies' folders or .parquet files.", metavar="TABLE...")]
X = Annotated[str, typer.Option(help="Cost to be small: gmacs, params, latency_ms or seconds.")]
Y = Annotated[str, typer.Option(help="Quality to be large: top1, top5 or val_top1.")]


@app.command()
def show(tables: Tables, x: X = "gmacs", y: Y = "top1", as_json: Json = False) -> None:
    """Print the front of one or more tables, and its hypervolume.

    Example: ofbnas front show runs/digits --x params
    """
    if as_json:
        print_json(summary(tables, x, y))
    else:
        print_front(tables, x, y)


@app.command()
def plot(
    tables: Tables,
    out: Annotated[Path, typer.Option("--out", "-o", help="Picture (.png, .svg, .pdf) or page (.html) to write.")],
    x: X = "gmacs",
    y: Y = "top1",
) -> None:
    """Draw the front of one or more tables.

    Example: ofbnas front plot runs/digits --out front.png
    """
    from ofbnas.plot import plot_front

    plot_front({str(table): _read([table]) for table in tables}, out, x=x, y=y)
    typer.echo(str(out))


def summary(tables: Sequence[Path], x: str = "gmacs", y: str = "top1") -> dict[str, Any]:
    """The front as plain values: its rows, hypervolume and reference point."""
    from dataclasses import asdict

    from ofbnas.front import front, hypervolume, reference_point
    from ofbnas.table import to_records

    table = _read(tables)
    best = front(table, x=x, y=y)
    columns = list(dict.fromkeys(["arch_id", "study", "trial", x, y, "gmacs", "params", "top1", "val_top1"]))
    volume = hypervolume(best, x=x, y=y, ref=reference_point(table, x=x))
    parents = table["parent_top1"].dropna()
    return {
        "x": x,
        "y": y,
        "num_rows": len(table),
        "parent_top1": float(parents.max()) if len(parents) else None,
        "hypervolume": asdict(volume),
        "front": to_records(best[columns]),
    }


def print_front(tables: Sequence[Path], x: str = "gmacs", y: str = "top1") -> None:
    """The front as a table for people."""
    found = summary(tables, x, y)
    if not found["front"]:
        typer.echo(f"no row of {', '.join(map(str, tables))} has both {x} and {y}")
        return
    columns = list(dict.fromkeys(["arch_id", x, "params", y, "study", "trial"]))
    print_table(columns, found["front"])
    volume = found["hypervolume"]
    typer.echo(
        f"{len(found['front'])} of {found['num_rows']} rows are on the front. Hypervolume {volume['value']:.4g} "
        f"({volume['share']:.1%} of what is possible) against the reference point {x} {volume['x']:.4g}, {y} "
        f"{volume['y']:g}."
    )
    if found["parent_top1"] is not None:
        typer.echo(f"The parent has top1 {found['parent_top1']:.2f}.")


def _read(tables: Sequence[Path]) -> pd.DataFrame:
    """One table of all."""
    import pandas as pd

    from ofbnas.table import read_table

    read = [read_table(table) for table in tables]
    return read[0] if len(read) == 1 else pd.concat(read, ignore_index=True)

"""ofbnas front: Pareto fronts of tables."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofbnas.cli.output import Json, print_json, print_table

if TYPE_CHECKING:
    import pandas as pd


class Grouping(StrEnum):
    """Columns by whose values fronts are told apart; a study's seed is that of its first trial."""

    STUDY = "study"
    MODEL = "model"
    SEED = "seed"


app = typer.Typer(name="front", no_args_is_help=True, help="Show, compare and plot Pareto fronts of tables.")
Tables = Annotated[list[Path], typer.Argument(help="Studies' folders or .parquet files.", metavar="TABLE...")]
X = Annotated[str, typer.Option(help="Cost to be small: gmacs, params, latency_ms, seconds or gpu_hours.")]
Y = Annotated[str, typer.Option(help="Quality to be large: top1, top5 or val_top1.")]


Group = Annotated[
    Grouping | None, typer.Option(help="Compare by this column instead of by TABLE; rows of all tables together.")
]


@app.command()
def show(tables: Tables, x: X = "gmacs", y: Y = "top1", group: Group = None, as_json: Json = False) -> None:
    """Print the front of one or more tables, or of each group of their rows, and its hypervolume.

    Example: ofbnas front show runs/digits --x params
    """
    found = [summary(rows, x, y) | {"group": label} for label, rows in _groups(tables, group, together=True).items()]
    if as_json:
        print_json(found if group else found[0])
        return
    for one in found:
        if group:
            typer.echo(f"{group.value} {one['group']}")
        print_front(one, ", ".join(map(str, tables)))


@app.command()
def compare(
    tables: Tables,
    x: X = "gmacs",
    y: Y = "top1",
    group: Group = None,
    ref: Annotated[
        tuple[float, float] | None, typer.Option(help="Reference point of hypervolumes.", metavar="X Y")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare fronts: indicators, where each is better, and a verdict.

    Studies of one name with other seeds are runs of one search: with several runs on both sides, --json has what they
    attain, and the verdict knows about chance.

    Example: ofbnas front compare runs/a runs/b
    """
    from dataclasses import asdict

    import pandas as pd

    from ofbnas.compare import compare
    from ofbnas.errors import InputError
    from ofbnas.front import reference_point

    groups = _groups(tables, group)
    if len(groups) < 2:
        raise InputError(f"a comparison needs two sides, but there is only {', '.join(groups)}")
    point = reference_point(pd.concat(groups.values()), x=x) if ref is None else ref
    found, pairs = compare(groups, x=x, y=y, ref=point)
    if as_json:
        print_json(
            {"x": x, "y": y, "ref": point, "groups": list(map(asdict, found)), "pairs": list(map(asdict, pairs))}
        )
        return
    rows = [
        {
            "front of": one.label,
            "points": len(one.front),
            "rows": one.rows,
            "runs": one.runs,
            "hypervolume": f"{one.hypervolume:.2%}",
            "per run (95 %)": None if (span := one.per_run) is None else f"{span.low:.2%} to {span.high:.2%}",
        }
        for one in found
    ]
    print_table(list(rows[0]), rows)
    typer.echo(f"Hypervolume: share of the area between {x} {point[0]:.4g}, {y} {point[1]:g} and {x} 0, {y} 100.")
    for pair in pairs:
        typer.echo()
        print_table(["indicator", pair.a, pair.b], _indicators(asdict(pair)))
        typer.echo(pair.verdict)


@app.command()
def plot(
    tables: Tables,
    out: Annotated[Path, typer.Option("--out", "-o", help="Picture (.png, .svg, .pdf) or page (.html) to write.")],
    x: X = "gmacs",
    y: Y = "top1",
    group: Group = None,
) -> None:
    """Draw the front of each table, or of each group of their rows.

    Example: ofbnas front plot runs/digits --out front.png
    """
    from ofbnas.plot import plot_front

    plot_front(_groups(tables, group), out, x=x, y=y)
    typer.echo(str(out))


def summary(table: pd.DataFrame, x: str = "gmacs", y: str = "top1") -> dict[str, Any]:
    """The front as plain values: its rows, hypervolume and reference point."""
    from dataclasses import asdict

    from ofbnas.front import front, hypervolume, reference_point
    from ofbnas.table import to_records

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


def print_front(found: dict[str, Any], tables: str) -> None:
    """What `summary` found, for people."""
    x, y = found["x"], found["y"]
    if not found["front"]:
        typer.echo(f"no row of {tables} has both {x} and {y}")
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


def _indicators(pair: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each indicator; where small is good, the larger number is the worse side."""
    a, b = pair["a"], pair["b"]
    names = {
        "epsilon_additive": "epsilon, additive (small is good)",
        "epsilon_multiplicative": "epsilon, multiplicative (small is good)",
        "igd_plus": "IGD+ (small is good)",
        "coverage": "share of the other's front equalled or beaten",
    }
    return [{"indicator": told, a: pair[name][0], b: pair[name][1]} for name, told in names.items()]


def _groups(tables: Sequence[Path], group: Grouping | None, *, together: bool = False) -> dict[str, pd.DataFrame]:
    """Rows by label: those of each table, or of each value of a column; `together` joins them where none is given."""
    import pandas as pd

    from ofbnas.table import read_table

    read = {str(table): read_table(table) for table in tables}
    if group is None and not together:
        return read
    joined = pd.concat(read.values(), ignore_index=True) if len(read) > 1 else next(iter(read.values()))
    if group is None:
        return {"": joined}
    column = joined["seed"] - joined["trial"] if group is Grouping.SEED else joined[group.value]
    return {str(label): rows.reset_index(drop=True) for label, rows in joined.groupby(column, sort=True)}

"""ofbnas front: Pareto fronts of tables."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofbnas.cli.output import Json, print_json, print_table, say
from ofbnas.table.columns import COSTS, QUALITIES
from ofbnas.table.units import with_unit

if TYPE_CHECKING:
    import pandas as pd

    from ofbnas.table.compare import Group as Side


class Grouping(StrEnum):
    """Columns by which rows can be grouped; the seed is the study's, not the trial's."""

    STUDY = "study"
    MODEL = "model"
    SEED = "seed"


app = typer.Typer(
    name="front", no_args_is_help=True, help="Show, compare and plot Pareto fronts of tables."
)
Tables = Annotated[
    list[Path], typer.Argument(help="Studies' folders or .parquet files.", metavar="TABLE")
]
X = Annotated[str, typer.Option(help=f"Cost to minimize: {', '.join(COSTS)}.")]
Y = Annotated[
    str | None,
    typer.Option(
        help=f"Quality to maximize: {', '.join(QUALITIES)}; by default val_top1, or top1 where a "
        "table has no validation accuracy."
    ),
]
Group = Annotated[
    Grouping | None,
    typer.Option(help="Join all tables and group their rows by this column, instead of by TABLE."),
]

Measured = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CONDITION=VALUE",
        help="Which latencies of `ofbnas bench` to take with --x latency_ms, such as "
        "batch_size=1; may be repeated. Needed where several conditions were measured.",
    ),
]


@app.command()
def show(
    tables: Tables,
    x: X = "gmacs",
    y: Y = None,
    group: Group = None,
    measured: Measured = None,
    as_json: Json = False,
) -> None:
    """Print a Pareto front and its hypervolume.

    Several tables are joined and have one front; with --group, each group of rows has its own. With
    --x latency_ms, latencies that `ofbnas bench` measured replace those that trials recorded.

    Example: ofbnas front show runs/digits --x params
    """
    groups = _groups(tables, group, _latencies(x, measured), together=True)
    summaries = []
    for label, rows in groups.items():
        summaries.append(summary(rows, x, y) | {"group": label})
    if as_json:
        print_json(summaries if group else summaries[0])
        return

    names = ", ".join(map(str, tables))
    for result in summaries:
        if group:
            say(f"{group.value} {result['group']}")
        print_front(result, names)


@app.command()
def compare(
    tables: Tables,
    x: X = "gmacs",
    y: Y = None,
    group: Group = None,
    measured: Measured = None,
    ref: Annotated[
        tuple[float, float] | None,
        typer.Option(help="Reference point of the hypervolumes.", metavar="X Y"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare fronts: indicators, where each is better, and a verdict.

    Studies with the same name and different seeds are runs of one search. With several runs on both
    sides, the verdict takes chance into account, and --json has the fronts that the runs attain.

    Example: ofbnas front compare runs/a runs/b
    """
    from dataclasses import asdict

    import pandas as pd

    from ofbnas.errors import InputError
    from ofbnas.table.compare import compare
    from ofbnas.table.front import default_quality, reference_point

    groups = _groups(tables, group, _latencies(x, measured))
    y = y or default_quality(groups.values())
    if len(groups) < 2:
        raise InputError(f"a comparison needs two sides, but there is only {', '.join(groups)}")
    if ref is None:
        # Of all sides together: hypervolumes against different points cannot be compared.
        ref = reference_point(pd.concat(groups.values()), x=x)
    sides, pairs = compare(groups, x=x, y=y, ref=ref)
    if as_json:
        print_json(
            {
                "x": x,
                "y": y,
                "ref": ref,
                "groups": list(map(asdict, sides)),
                "pairs": list(map(asdict, pairs)),
            }
        )
        return

    rows = list(map(_side, sides))
    print_table(list(rows[0]), rows)
    cost, quality = ref
    say(
        f"Hypervolume: share of the area between {x} {with_unit(x, cost)}, {y} {quality:g} "
        f"and {x} 0, {y} 100."
    )
    for pair in pairs:
        say()
        indicators = _indicators(asdict(pair))
        print_table(["indicator", pair.a, pair.b], indicators)
        say(pair.verdict)


@app.command()
def plot(
    tables: Tables,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Picture (.png, .svg, .pdf) or page (.html) to write."),
    ],
    x: X = "gmacs",
    y: Y = None,
    group: Group = None,
    measured: Measured = None,
) -> None:
    """Draw the front of each table, or of each group of their rows.

    Example: ofbnas front plot runs/digits --out front.png
    """
    from ofbnas.table.plot import plot_front

    plot_front(_groups(tables, group, _latencies(x, measured)), out, x=x, y=y)
    say(str(out))


def summary(table: pd.DataFrame, x: str = "gmacs", y: str | None = None) -> dict[str, Any]:
    """The front as plain values.

    Returns:
        Its rows, hypervolume, reference point and warnings, the top-1 of each parent, the best where
        one was trained several times, and a sentence about them.
    """
    from dataclasses import asdict

    from ofbnas.table.front import default_quality, front, hypervolume, reference_point
    from ofbnas.table.parents import parents, parents_sentence
    from ofbnas.table.query import to_records
    from ofbnas.table.trust import table_warnings

    y = y or default_quality([table])
    best = front(table, x=x, y=y)
    ref = reference_point(table, x=x)
    volume = hypervolume(best, x=x, y=y, ref=ref)
    names = ["arch_id", "study", "trial", x, y, "gmacs", "params", "top1", "val_top1"]
    if "latency" in x:
        names.append("latency_device")
    columns = list(dict.fromkeys(names))  # x and y may be among the others
    return {
        "x": x,
        "y": y,
        "num_rows": len(table),
        "parents": {model: max(values)[0] for model, values in parents(table, "top1").items()},
        "about_parents": parents_sentence(table, "top1"),
        "hypervolume": asdict(volume),
        "front": to_records(best[columns]),
        "warnings": table_warnings(table, y) if len(best) else [],
    }


def print_front(result: dict[str, Any], tables: str) -> None:
    """Print what `summary` returned."""
    x = result["x"]
    y = result["y"]
    front = result["front"]
    if not front:
        say(f"no row of {tables} has both {x} and {y}")
        return

    # x may be params, and y top1: each is shown once. Test accuracy stands beside what was ranked.
    columns = list(dict.fromkeys(["arch_id", x, "params", y, "top1", "study", "trial"]))
    if all(row["top1"] is None for row in front):
        columns.remove("top1")
    if "latency_device" in front[0]:
        columns.append("latency_device")
    print_table(columns, front)

    volume = result["hypervolume"]
    ref = f"{with_unit(x, volume['x'])}, {y} {volume['y']:g}"
    say(
        f"{len(front)} of {result['num_rows']} rows are on the front. "
        f"Hypervolume {100 * volume['share']:.1f} % of what is possible, from the reference point {ref}."
    )
    if result["about_parents"]:
        say(result["about_parents"])
    for warning in result["warnings"]:
        say(f"Take care: {warning}")


def _side(side: Side) -> dict[str, Any]:
    """A side of a comparison as a row."""
    per_run = None
    interval = side.per_run
    if interval is not None:
        per_run = f"{100 * interval.low:.2f} to {100 * interval.high:.2f} %"
    return {
        "front of": side.label,
        "points": len(side.front),
        "rows": side.rows,
        "runs": side.runs,
        "hypervolume": f"{100 * side.hypervolume:.2f} %",
        "per run (95 %)": per_run,
    }


def _indicators(pair: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each indicator, with a column for each side."""
    a = pair["a"]
    b = pair["b"]
    names = {
        "epsilon_additive": "epsilon, additive (small is good)",
        "epsilon_multiplicative": "epsilon, multiplicative (small is good)",
        "igd_plus": "IGD+ (small is good)",
        "coverage": "share of the other's front equalled or beaten",
    }
    rows = []
    for name, meaning in names.items():
        of_a, of_b = pair[name]
        rows.append({"indicator": meaning, a: of_a, b: of_b})
    return rows


def _latencies(x: str, measured: Sequence[str] | None) -> Sequence[str] | None:
    """Conditions of the measured latencies that an axis shows; None where it shows none.

    Raises:
        InputError: Conditions are given for an axis that is no latency.
    """
    from ofbnas.errors import InputError

    if "latency" in x:
        return measured or ()
    if measured:
        raise InputError(f"--measured: chooses among latencies, but the axis is {x}; leave it out")
    return None


def _groups(
    tables: Sequence[Path],
    group: Grouping | None,
    latencies: Sequence[str] | None,
    *,
    together: bool = False,
) -> dict[str, pd.DataFrame]:
    """Rows by label: those of each table, or of each value of a column.

    Args:
        tables: The tables.
        group: The column; None for one group per table.
        latencies: Conditions of the measured latencies to take; None to take none of them.
        together: Join all tables into one group with the label "" where no column is given.
    """
    import pandas as pd

    from ofbnas.table.latency import with_latencies
    from ofbnas.table.store import read_table

    frames = {str(table): read_table(table) for table in tables}
    if latencies is not None:
        for table in tables:
            frames[str(table)] = with_latencies(frames[str(table)], table, latencies)
    if group is None and not together:
        return frames
    joined = pd.concat(frames.values(), ignore_index=True)
    if group is None:
        return {"": joined}

    labels = joined[group.value]
    if group is Grouping.SEED:
        # A trial's seed is the study's plus the trial's number. The study's labels its trials.
        labels = labels - joined["trial"]
    groups = joined.groupby(labels, sort=True)
    return {str(label): rows.reset_index(drop=True) for label, rows in groups}

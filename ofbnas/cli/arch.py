"""ofbnas arch: the architectures of a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ofbnas.cli.output import Json, print_json, print_table

app = typer.Typer(name="arch", no_args_is_help=True, help="List and show the architectures of a table.")
Table = Annotated[Path, typer.Argument(help="A study's folder or a .parquet file.", metavar="TABLE")]


COLUMNS = ["arch_id", "trial", "model", "gmacs", "params", "top1", "val_top1"]


@app.command("list")
def list_architectures(
    table: Table,
    where: Annotated[
        list[str] | None, typer.Option("--where", metavar="CONDITION", help="Only rows like this, such as 'gmacs<=2'.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the architectures of a table, all or those that meet conditions.

    Example: ofbnas arch list runs/digits --where 'gmacs<=0.0003' --where 'top1>98'
    """
    from ofbnas.table import condition, read_table, to_records

    conditions = [("arch_id", "!=", ""), *map(condition, where or ())]  # null is not unequal: no failed ones
    if as_json:
        rows = read_table(table, where=conditions)
        print_json(to_records(rows.drop(columns=["model_kwargs", "versions"])))
        return
    records = to_records(read_table(table, columns=[*COLUMNS, "architecture"], where=conditions))
    told = [
        {**record, "embed": _sizes(record["architecture"]["embed"]), "blocks": _blocks(record["architecture"])}
        for record in records
    ]
    print_table([*COLUMNS, "embed", "blocks"], told)


@app.command()
def show(
    table: Table,
    arch: Annotated[str, typer.Option("--arch", help="Id of the architecture, or its beginning.", metavar="ID")],
    as_json: Json = False,
) -> None:
    """Show one architecture with all that is recorded of it.

    Example: ofbnas arch show runs/digits --arch 4f1c
    """
    from ofbnas.table import find, read_table, to_records

    rows = read_table(table)
    record = to_records(find(rows, arch).to_frame().T)[0]
    if as_json:
        print_json(record)
        return
    structure = record.pop("architecture")
    print_table(["column", "value"], [{"column": k, "value": v} for k, v in record.items() if v is not None])
    typer.echo(f"embedding: {_sizes(structure['embed'])}")
    blocks = [{"block": index, **block} for index, block in enumerate(structure["blocks"])]
    print_table(["block", "heads", "head_size", "mlp"], blocks)


def _sizes(sizes: list[int]) -> str:
    return ", ".join(map(str, sizes))


def _blocks(structure: dict[str, Any]) -> str:
    """Blocks as heads x head size / hidden units; what a block has no width of its own for is left out."""

    def told(block: dict[str, Any]) -> str:
        attention = f"{block['heads']}x{block['head_size']}" if block.get("heads") else ""
        return "/".join(part for part in (attention, str(block.get("mlp") or "")) if part)

    return "  ".join(map(told, structure["blocks"]))

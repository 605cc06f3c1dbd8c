"""ofbnas arch: the architectures of a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ofbnas.cli.output import Json, print_json, print_table

app = typer.Typer(name="arch", no_args_is_help=True, help="List and show the architectures of a table.")
Table = Annotated[Path, typer.Argument(help="A study's folder or a .parquet file.", metavar="TABLE")]


@app.command("list")
def list_architectures(table: Table, as_json: Json = False) -> None:
    """List all architectures of a table.

    Example: ofbnas arch list runs/digits
    """
    from ofbnas.table import read_table, to_records

    rows = read_table(table)
    records = to_records(rows[rows["arch_id"].notna()].drop(columns=["model_kwargs", "versions"]))
    if as_json:
        print_json(records)
    else:
        print_table(
            ["arch_id", "trial", "model", "gmacs", "params", "top1", "val_top1", "embed", "blocks"],
            [
                {
                    **record,
                    "embed": _sizes(record["architecture"]["embed"]),
                    "blocks": _blocks(record["architecture"]),
                }
                for record in records
            ],
        )


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

"""ofbnas arch: the architectures of a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ofbnas.cli import export
from ofbnas.cli.output import Json, cell, print_json, print_table, say
from ofbnas.models.shown import blocks_text, sizes_text

app = typer.Typer(
    name="arch",
    no_args_is_help=True,
    help="List, show, export and publish the architectures of a table.",
)
Table = Annotated[
    Path, typer.Argument(help="A study's folder or a .parquet file.", metavar="TABLE")
]
app.command("export")(export.export)

COLUMNS = ["arch_id", "trial", "model", "gmacs", "params", "top1", "val_top1"]

Arch = Annotated[
    str, typer.Option("--arch", help="Id of the architecture, or its beginning.", metavar="ID")
]


@app.command("list")
def list_architectures(
    table: Table,
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            metavar="CONDITION",
            help="Only rows that meet this, such as 'gmacs<=2'; may be repeated.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the architectures of a table.

    With --where, only those that meet all conditions.

    Example: ofbnas arch list runs/digits --where 'top1>98'
    """
    from ofbnas.table.query import condition, to_records
    from ofbnas.table.store import read_table

    # Drops failed trials: their arch_id is null, and no comparison with null is true.
    conditions = [("arch_id", "!=", ""), *map(condition, where or ())]
    if as_json:
        rows = read_table(table, where=conditions)
        rows = rows.drop(columns=["model_kwargs", "versions"])
        print_json(to_records(rows))
        return

    rows = read_table(table, columns=[*COLUMNS, "architecture"], where=conditions)
    records = to_records(rows)
    for record in records:
        architecture = record["architecture"]
        record["embed"] = sizes_text(architecture["embed"])
        record["blocks"] = blocks_text(architecture)
    print_table([*COLUMNS, "embed", "blocks"], records)


@app.command()
def show(
    table: Table,
    arch: Arch,
    as_json: Json = False,
) -> None:
    """Show everything that a table has about one architecture.

    Example: ofbnas arch show runs/digits --arch 4f1c
    """
    from ofbnas.table.query import find, to_records
    from ofbnas.table.store import read_table

    row = find(read_table(table), arch)
    record = to_records(row.to_frame().T)[0]
    if as_json:
        print_json(record)
        return

    architecture = record.pop("architecture")
    values = []
    for name, value in record.items():
        if value is not None:
            values.append({"column": name, "value": cell(name, value)})
    print_table(["column", "value"], values)

    say(f"embedding: {sizes_text(architecture['embed'])}")
    blocks = []
    for index, block in enumerate(architecture["blocks"]):
        blocks.append({"block": index, **block})
    print_table(["block", "heads", "head_size", "mlp"], blocks)


@app.command()
def push(
    table: Table,
    target: Annotated[str, typer.Argument(help="hf://models/OWNER/NAME.", metavar="TARGET")],
    arch: Arch,
    as_json: Json = False,
) -> None:
    """Upload one network as a model of the Hugging Face Hub, which timm loads by its name.

    A new repository gets the default visibility of its owner, usually public.

    Example: ofbnas arch push runs/digits hf://models/OWNER/NAME --arch 4f1c
    """
    from ofbnas.study.publish import publish

    name = publish(table, arch, target, lambda line: say(line, err=True))
    if as_json:
        print_json({"target": target, "timm": name})
        return
    say(f'{target}: timm.create_model("{name}", pretrained=True) loads it')

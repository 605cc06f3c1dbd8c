"""Architectures as text and as HTML, for people and for notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

PARTS = {"heads": "heads", "head_size": "head size", "mlp": "MLP"}


def blocks_text(encoded: Mapping[str, Any]) -> str:
    """All blocks of an architecture in one line, from the value of the table's column."""
    return "  ".join(map(block_text, encoded["blocks"]))


def block_text(block: Mapping[str, Any]) -> str:
    """A block as heads x head size / hidden units, each only if the block has its own.

    >>> block_text({"heads": 3, "head_size": 64, "mlp": 512}), block_text({"heads": 0, "mlp": 512})
    ('3x64/512', '-/512')
    """
    parts = []
    # Where attention is as wide as the stream, its heads are counted with the embedding.
    if block.get("heads") is not None:
        parts.append(f"{block['heads']}x{block['head_size']}" if block["heads"] else "-")
    if block.get("mlp") is not None:
        parts.append(str(block["mlp"] or "-"))
    return "/".join(parts)


def sizes_text(sizes: list[int]) -> str:
    """The sizes of the embedding: one, or one for each stage."""
    return ", ".join(map(str, sizes))


def architecture_html(title: str, encoded: Mapping[str, Any]) -> str:
    """An architecture as a table for a notebook, with a row for each block.

    Args:
        title: What stands above it.
        encoded: The value of the table's column.
    """
    parts = [part for part in PARTS if any(block.get(part) for block in encoded["blocks"])]
    head = "".join(f"<th>{PARTS[part]}</th>" for part in parts)
    rows = []
    for index, block in enumerate(encoded["blocks"]):
        cells = "".join(f"<td>{block.get(part) or '-'}</td>" for part in parts)
        rows.append(f"<tr><th>block {index}</th>{cells}</tr>")
    return (
        f"<table><caption>{escape(title)}; embedding {sizes_text(encoded['embed'])}</caption>"
        f"<thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )

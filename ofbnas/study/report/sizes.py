"""The sizes that a page draws architectures against: the parent's, or the largest that were found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ofbnas.models.architecture import block_names_of, encode_sizes, kinds_by_name

PARTS = ("heads", "head_size", "mlp")  # of a block


def sizes_of(
    architectures: Sequence[Mapping[str, Any]],
    decisions: Mapping[int, Mapping[str, Any]],
) -> dict[str, Any] | None:
    """Sizes to draw architectures against.

    They are the parent's where a history has them, else the largest that were found.
    """
    if not architectures:
        return None
    first = architectures[0]
    for of_trial in decisions.values():
        sizes = _parent_sizes(of_trial)
        if _form(sizes) == _form(first):
            return {**sizes, "parent": True}

    # A table from somebody else may mix models: only what can be compared is drawn together.
    alike = [sizes for sizes in architectures if _form(sizes) == _form(first)]
    largest = _largest_sizes(alike)
    return {**largest, "parent": False}


def _largest_sizes(architectures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The largest of each size over architectures of one form."""
    first = architectures[0]
    embed = []
    for stage in range(len(first["embed"])):
        embed.append(max(sizes["embed"][stage] for sizes in architectures))

    blocks = []
    for index, block in enumerate(first["blocks"]):
        largest = {}
        for name, size in block.items():
            largest[name] = size
            # A part that a block does not have is null in all architectures of one form.
            if size is not None:
                largest[name] = max(sizes["blocks"][index][name] for sizes in architectures)
        blocks.append(largest)
    return {"embed": embed, "blocks": blocks}


def _form(sizes: Mapping[str, Any]) -> tuple[int, list[list[bool]]]:
    """What architectures of one model share: their number of embeddings, and each block's parts."""
    blocks = []
    for block in sizes["blocks"]:
        blocks.append([block.get(part) is not None for part in PARTS])
    return len(sizes["embed"]), blocks


def _parent_sizes(decisions: Mapping[str, Any]) -> dict[str, Any]:
    """The parent's sizes as the table's `architecture` column would have them, and their names.

    Args:
        decisions: A trial's, as `Histories` has them.
    """
    sizes = {}
    for name, (groups, channels) in zip(decisions["axes"], decisions["first"], strict=True):
        sizes[name] = (groups, channels)
    kinds = kinds_by_name(sizes)
    return {
        **encode_sizes(sizes, kinds),
        "embed_names": [name for name, kind in kinds.items() if kind == "embed"],
        "block_names": block_names_of(kinds),
    }

"""The axes in a search's history, which `ofbnas.table.schema.HISTORY_SCHEMA` describes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ofbnas.models.axes import Axis
from ofbnas.models.supernet import Supernet


def axes_record(
    axes: Sequence[Axis],
    options: Sequence[int],
    widths: Sequence[float],
) -> list[dict[str, Any]]:
    """The axes in a row of the history: their sizes, and what is left to decide.

    Args:
        axes: Before the decision that the row records.
        options: For each axis, how many options it has then.
        widths: For each axis, the width that is expected of it.
    """
    records: list[dict[str, Any]] = []
    for axis, num_options, width in zip(axes, options, widths, strict=True):
        groups, channels = axis.size
        records.append(
            {
                "axis": axis.name,
                "groups": groups,
                "channels": channels,
                "options": num_options,
                "expected": width,
            }
        )
    return records


@torch.no_grad()
def supernet_record(supernet: Supernet) -> list[dict[str, Any]]:
    """The axes of a supernet, before a decision."""
    masks = supernet.masked()
    options = [
        masks[axis.name].num_alive if axis.name in masks else 1  # an axis without a mask is decided
        for axis in supernet.axes
    ]
    widths = supernet.expected_sizes().units
    return axes_record(supernet.axes, options, widths.tolist())

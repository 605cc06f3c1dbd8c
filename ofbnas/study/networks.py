"""The trained networks of a study or a shared table, by the ids of their architectures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from ofbnas.errors import InputError
from ofbnas.files.untrusted import inside
from ofbnas.files.weights import CONFIG
from ofbnas.models.subnet import Subnet, load
from ofbnas.table.layout import weights_file
from ofbnas.table.query import find
from ofbnas.table.store import read_table


def load_subnet(source: Path | str, arch_id: str) -> nn.Module:
    """The plain timm model of an architecture in a table, in evaluation mode.

    Args:
        source: A study's folder, a table's file or folder beside its weights, or the folder of the
            subnet itself.
        arch_id: The architecture's id, or an unambiguous beginning of it.

    Raises:
        InputError: There is no such table or architecture, or its weights are missing or are not
            those recorded.
    """
    source = Path(source)
    if (source / CONFIG).exists():
        subnet = load(source)
        if not subnet.architecture.id.startswith(arch_id):
            raise InputError(
                f"{source}: holds architecture {subnet.architecture.id}, expected {arch_id}"
            )
        return subnet.model

    return find_subnet(source, arch_id)[0].model


def find_subnet(source: Path, arch_id: str) -> tuple[Subnet, pd.Series[Any]]:
    """The network of an architecture in a table, and its row.

    Args:
        source: A study's folder, or a table's file or folder beside its weights.
        arch_id: The architecture's id, or an unambiguous beginning of it.

    Raises:
        InputError: As for `load_subnet`.
    """
    row = find(read_table(source), arch_id)
    folder = _folder_of(row, source)
    subnet = load(folder, row["weights_sha256"])
    if subnet.architecture.id != row["arch_id"]:
        raise InputError(
            f"{folder}: holds architecture {subnet.architecture.id}, expected {row['arch_id']}"
        )
    return subnet, row


def _folder_of(row: pd.Series[Any], source: Path) -> Path:
    """The folder of a row's subnet.

    Raises:
        InputError: The row has no weights, they are missing, or their path is not a valid one.
    """
    arch_id = row["arch_id"]
    weights = row["weights"]
    if pd.isna(weights):
        raise InputError(
            f"{source}: the row of {arch_id} names no weights; they were not shared with the table"
        )
    file = weights_file(source, weights)
    if file is None:
        raise InputError(
            f"{source}: the weights of {arch_id} are not here ({weights}); a table is shared with "
            "the weights of its front unless `ofbnas table push --weights all` was asked for"
        )
    inside(file.parent, CONFIG, source)  # refuses a link
    return file.parent

"""The trained networks of a study or a shared table, by the ids of their architectures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from ofbnas.errors import InputError
from ofbnas.files.untrusted import inside
from ofbnas.files.weights import CONFIG
from ofbnas.models.subnet import Subnet, load
from ofbnas.table.columns import Row
from ofbnas.table.layout import weights_file
from ofbnas.table.query import find, to_records
from ofbnas.table.store import read_table


def load_subnet(source: Path | str, arch_id: str = "") -> nn.Module:
    """The plain timm model of an architecture in a table, in evaluation mode.

    Args:
        source: A study's folder, a table's file or folder beside its weights, or the folder of the
            subnet itself.
        arch_id: The architecture's id, or an unambiguous beginning of it; the folder of a subnet
            needs none.

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

    return find_network(source, arch_id).subnet.model


@dataclass(frozen=True)
class Network:
    """A network of a table.

    Attributes:
        row: Its row.
        subnet: Its model, in evaluation mode.
    """

    row: Row
    subnet: Subnet


def find_network(table: Path, arch_id: str) -> Network:
    """The network of an architecture in a table: of several rows, the best one by validation.

    Args:
        table: A study's folder, or a table's file or folder beside its weights.
        arch_id: The architecture's id, or an unambiguous beginning of it.

    Raises:
        InputError: As `load_subnet`.
    """
    found = find(read_table(table), arch_id)
    (values,) = to_records(found.to_frame().T)
    folder = _folder_of(found, table)
    subnet = load(folder, found["weights_sha256"])
    if subnet.architecture.id != found["arch_id"]:
        raise InputError(
            f"{folder}: holds architecture {subnet.architecture.id}, expected {found['arch_id']}"
        )
    return Network(Row.known_in(values), subnet)


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

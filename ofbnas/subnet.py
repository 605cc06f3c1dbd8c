"""A found architecture and the plain timm model it makes; on disk without pickle."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ofbnas import table
from ofbnas.axes import axes as axes_of
from ofbnas.axes import check_sizes
from ofbnas.create import check_parameters, create_parent
from ofbnas.errors import InputError
from ofbnas.shrink import load_, shapes_at
from ofbnas.weights import check_shapes, file_sha256, weights_file

FORMAT = 1
Sizes = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Architecture:
    """A parent and the size of each of its axes; equal architectures have equal ids, everywhere.

    Attributes:
        model: timm's name of the parent.
        kwargs: Arguments of timm.create_model for the parent, number of classes included; plain JSON values.
        sizes: Axis name to (groups, channels).
    """

    model: str
    kwargs: Mapping[str, Any]
    sizes: Sizes

    @property
    def id(self) -> str:
        """The first 12 hexadecimal digits of the SHA-256 of the canonical JSON."""
        canonical = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    def to_json(self) -> dict[str, Any]:
        """Plain values, from which `from_json` makes an equal architecture."""
        sizes = {name: list(size) for name, size in self.sizes.items()}
        return {"model": self.model, "kwargs": dict(self.kwargs), "sizes": sizes}

    @staticmethod
    def from_json(value: Any) -> Architecture:
        """An architecture of the values of `to_json`.

        Raises:
            InputError: They are not of that form.
        """
        try:
            sizes = {str(name): (int(groups), int(channels)) for name, (groups, channels) in value["sizes"].items()}
            return Architecture(str(value["model"]), dict(value["kwargs"]), sizes)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"no architecture: expected model, kwargs and sizes ({error!r})") from None


@dataclass(frozen=True)
class Subnet:
    """An architecture with its trained model.

    Attributes:
        architecture: What it is.
        model: The plain timm model.
        units: For each axis, which of the parent's units it kept: flat indices, groups x channels.
    """

    architecture: Architecture
    model: nn.Module
    units: Mapping[str, list[list[int]]] = field(default_factory=dict)


def save(subnet: Subnet, folder: Path, *, card: str = "") -> str:
    """Write config.json, model.safetensors and README.md into a folder that does not exist yet.

    The folder appears with all its files or not at all.

    Args:
        subnet: What to save.
        folder: Where.
        card: Text of README.md.

    Returns:
        SHA-256 of the weights' file.

    Raises:
        FileExistsError: The folder exists.
    """
    if folder.exists():
        raise FileExistsError(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder.parent))
    beside.chmod(0o755)
    try:
        architecture = subnet.architecture.to_json()
        config = {
            "architecture": architecture["model"],
            "num_classes": subnet.architecture.kwargs.get("num_classes"),
            "model_args": architecture["kwargs"],
            "ofbnas": {
                "format": FORMAT,
                "arch_id": subnet.architecture.id,
                "sizes": architecture["sizes"],
                "units": subnet.units,
            },
        }
        (beside / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in subnet.model.state_dict().items()}
        save_file(tensors, beside / "model.safetensors", metadata={"format": "pt"})
        (beside / "README.md").write_text(card, encoding="utf-8")
        sha256 = file_sha256(beside / "model.safetensors")
        os.rename(beside, folder)  # noqa: PTH104 (Path.rename would replace an empty folder in silence)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    return sha256


def load(folder: Path, sha256: str | None = None) -> Subnet:
    """Read a subnet that `save` wrote; its model is in evaluation mode.

    Nothing is allocated before the sizes are checked against the parent, and no code is run from the files.

    Args:
        folder: The subnet's folder.
        sha256: Expected SHA-256 of the weights' file.

    Raises:
        InputError: Files are missing, damaged, or do not fit each other.
    """
    config_file, weights = folder / "config.json", folder / "model.safetensors"
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
        extra = config["ofbnas"]
        found = {"model": config["architecture"], "kwargs": config["model_args"], "sizes": extra["sizes"]}
        units = dict(extra["units"])
        version = int(extra["format"])
    except FileNotFoundError:
        raise InputError(f"{config_file}: no such file; expected the folder of a subnet") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{config_file}: no description of a subnet ({error!r})") from None
    if version > FORMAT:
        raise InputError(f"{config_file}: has format {version}, this ofbnas reads up to {FORMAT}: upgrade ofbnas")
    if not weights.is_file():
        raise InputError(f"{weights}: no such file; the weights of this subnet are not here")
    if sha256 is not None and (actual := file_sha256(weights)) != sha256:
        raise InputError(f"{weights}: has SHA-256 {actual}, expected {sha256}: the file is not the one recorded")
    architecture = Architecture.from_json(found)
    return Subnet(architecture, build(architecture, weights).eval(), units)


def load_subnet(source: Path | str, arch_id: str) -> nn.Module:
    """The plain timm model of an architecture in a table, in evaluation mode.

    Args:
        source: A study's folder, a table's file or folder beside its weights, or the folder of the subnet itself.
        arch_id: The architecture's id, or an unambiguous beginning of it.

    Raises:
        InputError: There is no such table or architecture, or its weights are missing or are not those recorded.
    """
    source = Path(source)
    if (source / "config.json").is_file():
        subnet = load(source)
        if not subnet.architecture.id.startswith(arch_id):
            raise InputError(f"{source}: holds architecture {subnet.architecture.id}, expected {arch_id}")
        return subnet.model
    row = table.find(table.read_table(source), arch_id)
    if pd.isna(row["weights"]):
        raise InputError(f"{source}: the row of {row['arch_id']} names no weights; they were not shared with the table")
    file = weights_file(source, row["weights"])
    if file is None:
        raise InputError(
            f"{source}: the weights of {row['arch_id']} are not here ({row['weights']}); a table is shared with the "
            "weights of its front unless `ofbnas table push --weights all` was asked for"
        )
    subnet = load(file.parent, row["weights_sha256"])
    if subnet.architecture.id != row["arch_id"]:
        raise InputError(f"{file.parent}: holds architecture {subnet.architecture.id}, expected {row['arch_id']}")
    return subnet.model


def build(architecture: Architecture, weights: Path) -> nn.Module:
    """The timm model of an architecture, with the weights of a .safetensors file.

    Raises:
        InputError: The architecture does not fit its parent, or the weights do not fit the architecture.
    """
    with torch.device("meta"):
        check_parameters(create_parent(architecture.model, architecture.kwargs))
    model = create_parent(architecture.model, architecture.kwargs)
    parent = axes_of(model, space={})
    check_sizes(parent, architecture.sizes)
    current = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    expected = shapes_at(current, parent, architecture.sizes)
    check_shapes(weights, expected)
    tensors = load_file(weights)
    load_(model, [axis.resized(architecture.sizes[axis.name]) for axis in parent], tensors)
    model.load_state_dict(tensors)
    return model

"""A found architecture and the plain timm model it makes; on disk without pickle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ofbnas.errors import InputError
from ofbnas.files import durable
from ofbnas.files.documents import MAX_BYTES
from ofbnas.files.untrusted import check_regular, visible
from ofbnas.files.weights import CARD, CONFIG, LOADER, WEIGHTS, Stored, check_weights, file_sha256
from ofbnas.models import load_alone
from ofbnas.models.architecture import Architecture, Sizes
from ofbnas.models.axes import Axis, at_sizes, check_sizes
from ofbnas.models.axes import axes as axes_of
from ofbnas.models.axes.axis import shapes_of
from ofbnas.models.create import MetaModel, on_meta
from ofbnas.models.shrink import load_, shapes_at
from ofbnas.models.subnet_config import (
    Images,
    Units,
    describe,
    pretrained_cfg_of,
    read_description,
)

# The size of a file of weights limits the memory that its model may take beside the weights: for
# buffers, and for what these are computed from. Of timm's models, BEiT-L at 512 pixels needs most,
# 1.4 GB for 1.2 GB of parameters; a subnet of it has a fraction of these parameters.
WORK = 2**30  # bytes that every model may take
WORK_PER_BYTE = 16  # bytes more for each byte of weights
UNITS_PER_BYTE = 1 / 16  # bytes of the list of kept units for each byte of weights


@dataclass(frozen=True)
class Subnet:
    """An architecture with its trained model.

    Attributes:
        architecture: The architecture.
        model: The plain timm model.
        units: For each axis, which of the parent's units it kept: flat indices, groups x channels.
    """

    architecture: Architecture
    model: nn.Module = field(repr=False)
    units: Units = field(default_factory=dict, repr=False)

    @property
    def params(self) -> int:
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def _repr_html_(self) -> str:
        """The architecture, in a notebook."""
        return f"{self.architecture._repr_html_()}<p>{self.params:,} parameters</p>"

    def save(self, folder: Path | str, card: str = "") -> Path:
        """Write the network into a folder that does not exist yet; `ofbnas.load_subnet` reads it.

        Args:
            folder: The folder to make.
            card: Text of README.md.

        Returns:
            The folder.

        Raises:
            InputError: The folder exists.
        """
        folder = Path(folder)
        try:
            save(self, folder, card=card)
        except FileExistsError:
            raise InputError(f"{folder}: exists already; give a folder that does not") from None
        return folder


def save(
    subnet: Subnet,
    folder: Path,
    *,
    card: str = "",
    images: Images | None = None,
) -> str:
    """Write a subnet's files into a folder that does not exist yet.

    They are config.json, model.safetensors, README.md, and load.py, which loads the subnet without
    ofbnas. The folder appears with all of them or not at all.

    Args:
        subnet: The subnet to save.
        folder: The folder to make.
        card: Text of README.md.
        images: How its images are prepared; by default as for the parent.

    Returns:
        SHA-256 of the weights' file.

    Raises:
        FileExistsError: The folder exists.
    """
    if folder.exists():
        raise FileExistsError(folder)
    config = describe(subnet.architecture, subnet.model, subnet.units, images or Images())
    beside = durable.temporary_path(folder)
    durable.make_folder(beside)
    try:
        text = json.dumps(config, indent=1) + "\n"
        (beside / CONFIG).write_text(text, encoding="utf-8")
        tensors: dict[str, Tensor] = {}
        for name, tensor in subnet.model.state_dict().items():
            tensors[name] = tensor.detach().cpu().contiguous()
        save_file(tensors, beside / WEIGHTS, metadata={"format": "pt"})
        (beside / CARD).write_text(card, encoding="utf-8")
        shutil.copyfile(load_alone.__file__, beside / LOADER)
        sha256 = file_sha256(beside / WEIGHTS)
        durable.rename(beside, folder)
    except BaseException:  # an interrupt, too: nothing half-written stays
        shutil.rmtree(beside, ignore_errors=True)
        raise
    return sha256


def load(folder: Path, sha256: str | None = None) -> Subnet:
    """Read a subnet that `save` wrote; its model is in evaluation mode.

    Nothing is allocated before the sizes are checked against the parent, and no code is run from
    the files.

    Args:
        folder: The subnet's folder.
        sha256: Expected SHA-256 of the weights' file.

    Raises:
        InputError: Files are missing, damaged, or do not fit each other.
    """
    config = folder / CONFIG
    weights = folder / WEIGHTS
    check_regular(weights)
    # Units grow with the model, so larger weights allow a larger description.
    num_bytes = weights.stat().st_size if weights.exists() else 0
    limit = MAX_BYTES + int(UNITS_PER_BYTE * num_bytes)
    described = read_description(config, limit)
    if not weights.exists():
        raise InputError(f"{weights}: no such file; the weights of this subnet are not here")
    if sha256 is not None:
        actual = file_sha256(weights)
        if actual != sha256:
            raise InputError(
                f"{weights}: has SHA-256 {actual}, expected {sha256}: "
                "the file is not the one recorded"
            )

    architecture = described.architecture
    model = build(architecture, weights, described.units)
    if architecture.id != described.arch_id:
        raise InputError(
            f"{config}: says that it is {described.arch_id}, "
            f"but its model and sizes make {architecture.id}"
        )
    pretrained_cfg: Any = pretrained_cfg_of(model, described.images)
    model.pretrained_cfg = pretrained_cfg
    model.default_cfg = pretrained_cfg  # an older name, which timm keeps
    return Subnet(architecture, model.eval(), described.units)


def build(
    architecture: Architecture,
    weights: Path,
    units: Units | None = None,
) -> nn.Module:
    """The timm model of an architecture, with the weights of a .safetensors file.

    All is checked on the meta device and by the header of the file. Only then are the subnet's
    tensors made; those of its parent never are.

    Args:
        architecture: The architecture.
        weights: The file.
        units: Which of the parent's units each axis kept, if that is known; it is checked, too.

    Raises:
        InputError: The architecture does not fit its parent, or the weights or units do not fit the
            architecture.
    """
    parent = on_meta(architecture.model, architecture.kwargs)
    axes = axes_of(parent.model, space={})
    check_sizes(axes, architecture.sizes)
    check_fit(parent, axes, architecture.sizes, weights)
    _check_units(units or {}, axes, architecture.sizes)
    return with_tensors(parent, axes, architecture.sizes, load_file(weights))


def with_tensors(
    parent: MetaModel,
    axes: Sequence[Axis],
    sizes: Sizes,
    tensors: Mapping[str, Tensor],
) -> nn.Module:
    """The model of a subnet, of its tensors; those of its parent are never made.

    Args:
        parent: The subnet's parent.
        axes: The parent's axes.
        sizes: The subnet's sizes, which have been checked.
        tensors: The subnet's, buffers included.
    """
    model = parent.hollow()
    load_(model, at_sizes(axes, sizes), tensors)
    model.load_state_dict(tensors)  # buffers, too
    return model


def check_fit(
    parent: MetaModel,
    axes: Sequence[Axis],
    sizes: Sizes,
    weights: Path,
) -> None:
    """Check that a .safetensors file holds a subnet's weights, by its header alone.

    Nothing is allocated before.

    Args:
        parent: The subnet's parent.
        axes: The parent's axes.
        sizes: The subnet's sizes.
        weights: The file.

    Raises:
        InputError: It does not, or making the subnet would take far more memory than the file.
    """
    tensors = parent.model.state_dict()
    shapes = shapes_at(shapes_of(tensors), axes, sizes)
    expected: dict[str, Stored] = {}
    for name, shape in shapes.items():
        expected[name] = Stored(shape, tensors[name].is_floating_point())
    check_weights(weights, expected)
    num_bytes = weights.stat().st_size
    parent.check_work(most=WORK + WORK_PER_BYTE * num_bytes)


def _check_units(
    units: Mapping[str, Any],
    axes: Sequence[Axis],
    sizes: Sizes,
) -> None:
    """Check that units are as many as sizes say, and among the parent's.

    Raises:
        InputError: They are not.
    """
    units_of_parent = {axis.name: axis.units for axis in axes}
    for name, kept in units.items():
        if name not in sizes:
            raise InputError(f"units of {visible(name)[:80]}: the model has no such axis")
        groups, channels = sizes[name]
        rows = kept if isinstance(kept, list) else []
        rows_fit = all(isinstance(row, list) and len(row) == channels for row in rows)
        if len(rows) != groups or not rows_fit:
            raise InputError(f"units of {name}: expected {groups} lists of {channels} numbers each")

        numbers = list(chain.from_iterable(rows))
        known = range(units_of_parent[name])
        # `type(...) is int`, as a bool is an int and in the range.
        all_known = all(type(number) is int and number in known for number in numbers)
        if not all_known or len(set(numbers)) < len(numbers):
            raise InputError(
                f"units of {name}: expected different whole numbers from 0 to {known[-1]}"
            )

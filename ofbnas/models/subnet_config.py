"""A subnet's config.json: written for timm, for `load.py` beside it, and for ofbnas itself.

timm reads `architecture`, `model_args` and `pretrained_cfg`. The section `ofbnas` says which parent
the subnet was cut from and what is left of it, and under `rebuilt` how to make that from the parent
without ofbnas.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from ofbnas.errors import InputError
from ofbnas.files.documents import parse_json, read_text
from ofbnas.files.untrusted import check_arch_id
from ofbnas.models.architecture import Architecture
from ofbnas.models.axes import all_bindings, axes, input_size
from ofbnas.models.axes.branches import stand_ins_of
from ofbnas.models.shrink import attributes_of
from ofbnas.models.stock import stock_args

# Format 1 had no `pretrained_cfg`, so timm could not read it; its `architecture` and `model_args`
# were those of the parent.
FORMAT = 2
ENTRY_POINT = "ofbnas_subnet"  # the name under which `ofbnas.timm` registers subnets

Units = Mapping[str, list[list[int]]]

# What of the parent's `pretrained_cfg` is also true of a subnet, unless its images are known.
_OF_PARENT = (
    "fixed_input_size", "first_conv", "classifier", "crop_mode",
    "mean", "std", "interpolation", "crop_pct",
)  # fmt: skip


@dataclass(frozen=True)
class Images:
    """How a model's images are prepared, by timm's names; None where that is not known.

    Attributes:
        mean: Mean per channel, for pixels in 0 to 1, that images are normalised with.
        std: Standard deviation per channel, likewise.
        interpolation: "bilinear", "bicubic" or "random", by which images are resized.
        crop_pct: Share of the resized image, per side, that is cropped from its centre for testing.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: str | None = None
    crop_pct: float | None = None


class Description(NamedTuple):
    """What a subnet's config.json says it is.

    Attributes:
        architecture: Its architecture.
        units: For each axis, which of the parent's units it kept.
        arch_id: The id that it claims.
        images: How its images are prepared.
    """

    architecture: Architecture
    units: Units
    arch_id: str
    images: Images


def describe(
    architecture: Architecture, model: nn.Module, units: Units, images: Images
) -> dict[str, Any]:
    """The content of a subnet's config.json."""
    described = architecture.to_json()
    parent = described["model"]
    kwargs = described["kwargs"]
    name = ENTRY_POINT
    model_args = {"parent": parent, "sizes": described["sizes"], **kwargs}
    stock = stock_args(architecture, model)
    if stock is not None:
        name = parent
        model_args = stock
    return {
        "architecture": name,
        "num_classes": model.num_classes,
        "num_features": model.num_features,
        "model_args": model_args,
        "pretrained_cfg": pretrained_cfg_of(model, images),
        "ofbnas": {
            "format": FORMAT,
            "arch_id": architecture.id,
            **described,
            "units": units,
            "rebuilt": _rebuilt(model),
        },
    }


def pretrained_cfg_of(model: nn.Module, images: Images) -> dict[str, Any]:
    """timm's `pretrained_cfg` of a subnet: what its weights were trained on, and their names.

    Args:
        model: The subnet's model.
        images: How its images are prepared; what is not known is taken to be as for the parent.
    """
    of_parent: Mapping[str, Any] = getattr(model, "pretrained_cfg", {})
    inherited = {key: of_parent[key] for key in _OF_PARENT if key in of_parent}
    known = {key: value for key, value in asdict(images).items() if value is not None}
    return {
        **inherited,
        **known,
        "input_size": input_size(model),
        "num_classes": model.num_classes,
    }


def _rebuilt(model: nn.Module) -> dict[str, Any]:
    """What `load.py` changes in the parent, beside its tensors: see `ofbnas.models.load_alone`."""
    model_axes = axes(model, {})
    stored = model.state_dict()
    buffers: dict[str, list[int]] = {}
    for _, binding in all_bindings(model_axes):
        # Buffers that follow an axis hold zeros, and most of them are in no file of weights.
        if binding.tensor not in stored:
            buffers[binding.tensor] = list(model.get_buffer(binding.tensor).shape)
    return {
        "stand_ins": stand_ins_of(model),
        "buffers": buffers,
        "attributes": {
            **attributes_of(model, model_axes),
            "feature_info": model.feature_info,
        },
    }


def read_description(config: Path, limit: int) -> Description:
    """What a subnet's config.json says it is.

    Args:
        config: The file.
        limit: Most bytes that it may have.

    Raises:
        InputError: There is no such file, or it does not describe a subnet.
    """
    try:
        text = read_text(config, "the description of a subnet", limit)
    except FileNotFoundError:
        raise InputError(f"{config}: no such file; expected the folder of a subnet") from None
    value = parse_json(text, f"{config}: does not describe a subnet", limit)
    match value:
        case {"ofbnas": {"format": int(version)}} if version > FORMAT:
            raise InputError(
                f"{config}: has format {version}, this ofbnas reads up to {FORMAT}: upgrade ofbnas"
            )
        case {
            "architecture": str(model),
            "model_args": dict(kwargs),
            "ofbnas": {
                "format": 1,
                "arch_id": arch_id,
                "sizes": dict(sizes),
                "units": dict(units),
            },
        }:
            images = Images()
        case {
            "pretrained_cfg": dict(pretrained_cfg),
            "ofbnas": {
                "format": 2,
                "arch_id": arch_id,
                "model": str(model),
                "kwargs": dict(kwargs),
                "sizes": dict(sizes),
                "units": dict(units),
            },
        }:
            images = _read_images(pretrained_cfg, config)
        case _:
            raise InputError(
                f"{config}: does not describe a subnet: expected pretrained_cfg, "
                "and ofbnas with format, arch_id, model, kwargs, sizes and units"
            )
    architecture = Architecture.from_json({"model": model, "kwargs": kwargs, "sizes": sizes})
    return Description(architecture, units, check_arch_id(arch_id, config), images)


def _read_images(pretrained_cfg: Mapping[str, Any], config: Path) -> Images:
    """How images are prepared, as a `pretrained_cfg` says.

    Raises:
        InputError: It says it in another form.
    """
    match pretrained_cfg:
        case {
            "mean": [*mean],
            "std": [*std],
            "interpolation": "bilinear" | "bicubic" | "random" as interpolation,
            "crop_pct": int() | float() as crop_pct,
        } if _are_numbers([*mean, *std, crop_pct]):
            return Images(tuple(mean), tuple(std), interpolation, crop_pct)
    raise InputError(
        f"{config}: its pretrained_cfg is not one of timm: expected mean and std (numbers), "
        "interpolation (bilinear, bicubic or random) and crop_pct (a number)"
    )


def _are_numbers(values: list[Any]) -> bool:
    return all(isinstance(value, int | float) and math.isfinite(value) for value in values)

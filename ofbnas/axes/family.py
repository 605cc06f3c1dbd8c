"""What is known of a family of timm's models."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import nn

from ofbnas.axes import families
from ofbnas.axes.axis import Axis
from ofbnas.axes.parts import Parts
from ofbnas.errors import InputError

Sides = tuple[int, int]


def _image_sides(model: Any) -> Sides:
    height, width = model.patch_embed.img_size
    return height, width


def _patch_grid(model: Any) -> Sides:
    rows, columns = model.patch_embed.grid_size
    return rows, columns


def _no_merging(model: Any) -> int:
    return 1


@dataclass(frozen=True)
class Family:
    """A family of models with the same insides.

    Attributes:
        name: A word for it.
        classes: Its classes exactly; a class that inherits from one of them is another family.
        axes: The axes of a model, all at full size only.
        members: What it is, for readers.
        limits: What cannot be searched, and why, for readers.
        free: Names of parameters that no axis changes, with `*` for any part.
        image_sides: Pixels, (height, width).
        patch_grid: Patches, (rows, columns).
        merging: How many patches along each side become one place of the final features.
        channels_first: Whether maps are [batch, channels, rows, columns] instead of channels last.
    """

    name: str
    classes: tuple[type[nn.Module], ...]
    axes: Callable[[Parts], list[Axis]]
    members: str
    limits: str = ""
    free: tuple[str, ...] = ()
    image_sides: Callable[[Any], Sides] = _image_sides
    patch_grid: Callable[[Any], Sides] = _patch_grid
    merging: Callable[[Any], int] = _no_merging
    channels_first: bool = False


@cache
def all_families() -> tuple[Family, ...]:
    """The families, one for each file of the folder, in the order of the files' names."""
    names = sorted(module.name for module in pkgutil.iter_modules(families.__path__))
    return tuple(importlib.import_module(f"{families.__name__}.{name}").FAMILY for name in names)


def family_of(model: nn.Module) -> Family:
    """The family a model belongs to.

    Raises:
        InputError: None is known.
    """
    for family in all_families():
        if type(model) in family.classes:
            return family
    known = ", ".join(sorted(cls.__name__ for family in all_families() for cls in family.classes))
    raise InputError(f"{type(model).__name__} cannot be searched: expected one of timm's {known}")

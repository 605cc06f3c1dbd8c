"""What is known of a family of timm's models."""

from __future__ import annotations

import importlib
import pkgutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from torch import nn

from ofbnas.errors import InputError
from ofbnas.models.axes import families
from ofbnas.models.axes.axis import Axis
from ofbnas.models.axes.parts import Parts

Sides = tuple[int, int]


def _image_sides(model: Any) -> Sides:
    height, width = model.patch_embed.img_size
    return height, width


def _patch_grid(model: Any) -> Sides:
    rows, columns = model.patch_embed.grid_size
    return rows, columns


def _no_merging(model: Any) -> int:
    return 1


class ReferenceCounts(NamedTuple):
    """What OFB's published formula counts; what is left out counts 0.

    Attributes:
        tensors: How often each tensor counts, by name.
        per_unit: What each axis adds per unit, by the axis' name.
        per_group: What each axis adds per group, by the axis' name.
    """

    tensors: Counter[str]
    per_unit: Counter[str]
    per_group: Counter[str]


@dataclass(frozen=True)
class Family:
    """A family of models with the same insides.

    Attributes:
        name: One word.
        classes: Its classes exactly; a class that inherits from one of them is another family.
        axes: Gives the axes of a model, each with its full size as its only option.
        members: The models that belong to it, for readers.
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
    """All families, one for each file of the folder, in the order of the files' names."""
    names = sorted(module.name for module in pkgutil.iter_modules(families.__path__))
    modules = [importlib.import_module(f"{families.__name__}.{name}") for name in names]
    return tuple(module.FAMILY for module in modules)


def family_of(model: nn.Module) -> Family:
    """The family a model belongs to.

    Raises:
        InputError: Its class is of no known family.
    """
    known: list[str] = []
    for family in all_families():
        if type(model) in family.classes:
            return family
        known += [kind.__name__ for kind in family.classes]
    kind = type(model)
    expected = f"expected one of timm's {', '.join(sorted(known))}"
    if kind.__module__.partition(".")[0] == "timm":
        raise InputError(f"{kind.__name__} cannot be searched: {expected}")
    # Other libraries have classes of the same names, with other tensors.
    raise InputError(
        f"{kind.__module__}.{kind.__name__} cannot be searched: it is not a class of timm's; "
        f"{expected}, with the weights under timm's names"
    )

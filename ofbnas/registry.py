"""What of timm's registry can be searched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, get_type_hints

import timm
import torch
from torch import nn

from ofbnas.axes import KEYS, all_families, axes, family_of
from ofbnas.cost import cost_of, least_sizes, sizes_of
from ofbnas.errors import InputError


@dataclass(frozen=True)
class Registered:
    """A model of timm's registry.

    Attributes:
        model: timm's name.
        family: The family it belongs to, or None.
        reason: Why it cannot be searched, or None if it can.
        axes: How many axes have more than one option in the default space, by the key of the space that gives them.
        gmacs: Multiply-accumulates per image, 10^9, of the model itself; None where it cannot be searched.
        least_gmacs: The same of the smallest architecture in the default space.
    """

    model: str
    family: str | None
    reason: str | None
    axes: dict[str, int] = field(default_factory=dict)
    gmacs: float | None = None
    least_gmacs: float | None = None

    @property
    def searchable(self) -> bool:
        """Whether it can be searched."""
        return self.reason is None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"searchable": self.searchable}


def names(pattern: str = "*") -> list[str]:
    """timm's names of models that a pattern such as `deit*` matches.

    Raises:
        InputError: It matches none.
    """
    if not (found := timm.list_models(pattern)):
        raise InputError(f"no model of timm {timm.__version__} is named {pattern}; try a pattern such as 'deit*'")
    return list(found)


def look_up(names: list[str], *, costs: bool = True) -> Iterator[Registered]:
    """What is known of models, one after the other; nothing is allocated or computed, and no weights are loaded.

    Args:
        names: timm's names.
        costs: Whether to work out what they cost, which takes about half of the time.
    """
    known = {kind for family in all_families() for kind in family.classes}
    for name in names:
        promised = get_type_hints(timm.model_entrypoint(name)).get("return")
        if isinstance(promised, type) and issubclass(promised, nn.Module) and not _may_be(promised, known):
            yield Registered(name, None, f"no family is known for {promised.__name__}")
            continue
        with torch.device("meta"):
            model = timm.create_model(name)
        yield _looked_up(name, model, costs)


def _may_be(promised: type, known: set[type[nn.Module]]) -> bool:
    """Whether a function that promises a class may give one that is known."""
    return any(issubclass(kind, promised) for kind in known)


def _looked_up(name: str, model: nn.Module, costs: bool) -> Registered:
    try:
        family = family_of(model).name
    except InputError:
        return Registered(name, None, f"no family is known for {type(model).__name__}")
    try:
        found = axes(model)
    except InputError as error:
        return Registered(name, family, str(error))
    searched = {key: count for key in KEYS if (count := sum(key in axis.searched_keys() for axis in found))}
    if not costs:
        return Registered(name, family, None, searched)
    cost = cost_of(model, found)
    return Registered(name, family, None, searched, cost.of(sizes_of(found)) / 1e9, cost.of(least_sizes(found)) / 1e9)

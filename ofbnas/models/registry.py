"""Which models of timm's registry can be searched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, get_type_hints

import timm
import torch
from torch import nn

from ofbnas.errors import InputError
from ofbnas.models.axes import KEYS, all_families, axes, family_of
from ofbnas.models.cost import cost_of, least_sizes, sizes_of
from ofbnas.models.subnet_config import ENTRY_POINT


@dataclass(frozen=True)
class Registered:
    """A model of timm's registry.

    Attributes:
        model: timm's name.
        family: The family it belongs to, or None.
        reason: Why it cannot be searched, or None if it can.
        axes: How many axes have more than one option in the default space, by the key of the space
            that gives them.
        gmacs: Multiply-accumulates per image of the model itself, 10^9; None if it cannot be
            searched.
        least_gmacs: The same for the smallest architecture in the default space.
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
    # The entry point of subnets is no model by itself; `ofbnas.timm` registers it.
    matching: list[str] = timm.list_models(pattern, exclude_filters=ENTRY_POINT)
    if not matching:
        raise InputError(
            f"no model of timm {timm.__version__} is named {pattern}; try a pattern such as 'deit*'"
        )
    return matching


def look_up(names: list[str], *, costs: bool = True) -> Iterator[Registered]:
    """What is known of models, one after the other.

    Models are made on the meta device: nothing is allocated or computed, and no weights are loaded.

    Args:
        names: timm's names.
        costs: Whether to work out what they cost, which takes about half of the time.
    """
    known: set[type[nn.Module]] = set()
    for family in all_families():
        known |= set(family.classes)
    for name in names:
        # The annotation of its function excludes most models, without making them.
        hints = get_type_hints(timm.model_entrypoint(name))
        annotated: Any = hints.get("return")
        if _excludes(annotated, known):
            yield Registered(name, None, f"no family is known for {annotated.__name__}")
            continue
        with torch.device("meta"):
            model = timm.create_model(name)
        yield _registered(name, model, costs)


def _excludes(annotated: Any, known: set[type[nn.Module]]) -> bool:
    """Whether a function that is annotated to return a module cannot return one that is known."""
    if not isinstance(annotated, type) or not issubclass(annotated, nn.Module):
        return False
    return not any(issubclass(kind, annotated) for kind in known)


def _registered(
    name: str,
    model: nn.Module,
    costs: bool,
) -> Registered:
    """What is known of a model on the meta device."""
    try:
        family = family_of(model).name
    except InputError:
        return Registered(
            name,
            None,
            f"no family is known for {type(model).__name__}",
        )
    try:
        model_axes = axes(model)
    except InputError as error:
        return Registered(name, family, str(error))

    counts: Counter[str] = Counter()
    for axis in model_axes:
        counts.update(set(axis.searched_keys()))
    searched = {key: counts[key] for key in KEYS if counts[key]}
    if not costs:
        return Registered(name, family, None, searched)
    cost = cost_of(model, model_axes)
    return Registered(
        name,
        family,
        None,
        searched,
        gmacs=cost.of(sizes_of(model_axes)) / 1e9,
        least_gmacs=cost.of(least_sizes(model_axes)) / 1e9,
    )

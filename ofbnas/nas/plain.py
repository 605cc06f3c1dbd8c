"""A plain model that is part of a parent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ofbnas.models.architecture import Architecture
from ofbnas.models.axes import Axis, at_sizes
from ofbnas.models.axes.axis import Size
from ofbnas.models.shrink import take, with_tensors
from ofbnas.models.subnet import Subnet


class Network(NamedTuple):
    """A plain model, part of a parent.

    Attributes:
        model: In evaluation mode.
        axes: Its axes.
        units: For each axis, which of the parent's units are left, [groups, channels].
    """

    model: nn.Module
    axes: list[Axis]
    units: dict[str, Tensor]

    @classmethod
    def whole(cls, model: nn.Module, axes: Sequence[Axis]) -> Network:
        """A parent with all of its units."""
        units = {axis.name: torch.arange(axis.units).view(axis.size) for axis in axes}
        return cls(model, list(axes), units)

    def cut(
        self, kept: Mapping[str, Tensor], tensors: Mapping[str, Tensor] | None = None
    ) -> Network:
        """A copy with fewer units.

        Args:
            kept: Axis name to the units it keeps, flat indices [groups, channels]; an axis that is
                not named keeps all.
            tensors: Of the model as it is, by name, in place of its own.
        """
        whole = dict(self.model.named_parameters()) | dict(tensors or {})
        units = dict(self.units)
        for name, left in kept.items():
            units[name] = units[name].flatten()[left.cpu()]
        axes = at_sizes(
            self.axes, {name: (len(left), left.shape[1]) for name, left in kept.items()}
        )
        model = with_tensors(self.model, axes, take(whole, self.axes, kept))
        return Network(model.eval(), axes, units)

    def at(self, sizes: Mapping[str, Size]) -> Network:
        """A copy of other sizes with the first units of each axis, for what depends on sizes alone.

        Args:
            sizes: Axis name to (groups, channels); an axis that is not named keeps all.
        """
        kept = {}
        for axis in self.axes:
            groups, channels = sizes.get(axis.name, axis.size)
            if (groups, channels) != axis.size:
                whole = torch.arange(axis.units).view(axis.size)
                kept[axis.name] = whole[:groups, :channels]
        return self.cut(kept)

    def subnet(self, name: str, kwargs: Mapping[str, Any]) -> Subnet:
        """It as a subnet of its parent, which timm makes of a name and arguments."""
        sizes = {axis.name: axis.size for axis in self.axes}
        units = {axis_name: kept.tolist() for axis_name, kept in self.units.items()}
        return Subnet(Architecture(name, dict(kwargs), sizes), self.model, units)

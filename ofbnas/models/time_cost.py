"""What a plain ViT costs in time, from tables of its parts.

At a given embedding, the time of a network is that of its ends plus those of its attentions and
MLPs, each of which depends on its own size only:

    T(e, attentions, MLPs) = rest(e) + sum attention(e, heads, head size) + sum mlp(e, hidden units).

So times are to the exact choice what multiply-accumulates are. MDP (CVPR 2025) splits a block into
such tables, too. Between the sizes measured, tables are interpolated linearly in each size, which
is exact for multiply-accumulates.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ofbnas.errors import InputError
from ofbnas.models.axes import Axis, family_of
from ofbnas.models.axes.axis import Size
from ofbnas.models.bimask import ExpectedSize

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Measure = Callable[[Mapping[str, Size]], float]  # the time of a network of these sizes, ns


@dataclass(frozen=True)
class TimeTables:
    """Times of a batch through parts of a network, nanoseconds, at levels of their sizes.

    Attributes:
        embed: Widths of the embedding, ascending, [e].
        heads: Numbers of heads, ascending, [h].
        head_size: Head sizes, ascending, [c].
        hidden: Numbers of hidden units of an MLP, ascending, [m].
        rest: Time of what is not in blocks, [e].
        attention: Time of a block's attention with its norm, [e, h, c].
        mlp: The same of its MLP, [e, m].
        full: Time of the parent.
    """

    embed: Floats
    heads: Floats
    head_size: Floats
    hidden: Floats
    rest: Floats
    attention: Floats
    mlp: Floats
    full: float

    def to_json(self) -> dict[str, Any]:
        """Plain values, from which `from_json` makes equal tables."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: np.asarray(value).tolist() for name, value in values.items()}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> TimeTables:
        """The tables that `to_json` gave."""
        arrays = {name: np.array(value[name]) for name in value if name != "full"}
        return TimeTables(**arrays, full=value["full"])

    def narrow_block(self) -> float:
        """The time of a block of the least sizes, as a share of that of the largest.

        Near 1, kernels take as long to launch as to run: then only fewer blocks save time.
        """
        least = self.attention[0, 0, 0] + self.mlp[0, 0]
        most = self.attention[-1, -1, -1] + self.mlp[-1, -1]
        return float(least / most)

    def of_rest(self, embed: Tensor) -> Tensor:
        """Interpolated times of what is not in blocks."""
        return interpolated([self.embed], self.rest, [embed])

    def of_attention(self, embed: Tensor, heads: Tensor, head_size: Tensor) -> Tensor:
        """Interpolated times of attentions."""
        levels = [self.embed, self.heads, self.head_size]
        return interpolated(levels, self.attention, [embed, heads, head_size])

    def of_mlp(self, embed: Tensor, hidden: Tensor) -> Tensor:
        """Interpolated times of MLPs."""
        return interpolated([self.embed, self.hidden], self.mlp, [embed, hidden])


def interpolated(levels: Sequence[Floats], values: Floats, at: Sequence[Tensor]) -> Tensor:
    """A table between its levels, linear in each coordinate, and differentiable.

    Args:
        levels: The levels of each coordinate, ascending.
        values: The table, with a dimension for each coordinate.
        at: The coordinates, all of one shape; beyond the ends, those of the ends.

    Returns:
        Values of that shape, in float64.

    >>> square = np.array([[0.0, 1.0], [2.0, 3.0]])
    >>> at = [torch.tensor([0.5]), torch.tensor([0.25])]
    >>> interpolated([np.array([0, 1]), np.array([0, 1])], square, at).tolist()
    [1.25]
    """
    at = torch.broadcast_tensors(*at)
    corners: list[list[tuple[Tensor, Tensor]]] = []  # of each coordinate, indices and weights
    for marks, coordinate in zip(levels, at, strict=True):
        known = torch.as_tensor(marks, dtype=torch.float64, device=coordinate.device)
        position = coordinate.double().clamp(float(known[0]), float(known[-1]))
        if len(known) == 1:
            corners.append([(torch.zeros_like(position).long(), torch.ones_like(position))])
            continue
        above = torch.searchsorted(known, position.detach().contiguous(), right=True)
        above = above.clamp(1, len(known) - 1)
        share = (position - known[above - 1]) / (known[above] - known[above - 1])
        corners.append([(above - 1, 1 - share), (above, share)])

    table = torch.as_tensor(values, dtype=torch.float64, device=at[0].device)
    total = torch.zeros_like(at[0], dtype=torch.float64)
    for corner in itertools.product(*corners):
        weight = torch.ones_like(total)
        for _, share in corner:
            weight = weight * share
        total = total + weight * table[tuple(index for index, _ in corner)]
    return total


class TimeCost:
    """A cost in nanoseconds per batch, for all that chooses sizes; see `cost.Cost`.

    Attributes:
        names: The axes, in the order of sizes.
        tables: What was measured.
        scale: What predictions are multiplied by, so that they agree with whole networks.
        alike: Kinds of the axes, where only networks whose blocks are alike are allowed; else empty.
    """

    def __init__(
        self, axes: Sequence[Axis], tables: TimeTables, scale: float, measure: Measure
    ) -> None:
        """A cost.

        Args:
            axes: Of a model that `check_timeable` accepts.
            tables: Of its parts.
            scale: As the attribute.
            measure: Times a network.
        """
        self.names = tuple(axis.name for axis in axes)
        self.tables = tables
        self.scale = scale
        self.measure = measure
        self.kinds = [axis.kind for axis in axes]
        self.alike = tuple(axis.kind for axis in axes if axis.alike)
        self.embed = self.kinds.index("embed")
        self._own = cache(self._interpolated)

    def of(self, sizes: Sequence[Size] | Ints) -> int:
        """The predicted time at sizes (groups, channels), in the order of `names`."""
        pairs = [(int(groups), int(channels)) for groups, channels in sizes]
        embed = pairs[self.embed][1]
        own = [self._own(kind, embed, size) for kind, size in zip(self.kinds, pairs, strict=True)]
        return sum(own)

    def measured(self, sizes: Sequence[Size] | Ints) -> int:
        """The measured time at sizes."""
        pairs = [(int(groups), int(channels)) for groups, channels in sizes]
        return round(self.measure(dict(zip(self.names, pairs, strict=True))))

    def meeting(self) -> Ints:
        """Which axes meet, not 0 where they do, [axes, axes]: each branch meets the embedding."""
        pairs = np.zeros((len(self.names), len(self.names)), dtype=np.int64)
        pairs[self.embed, :] = 1
        pairs[:, self.embed] = 1
        pairs[self.embed, self.embed] = 0
        return pairs

    def given(
        self, fixed: Mapping[int, Size], sizes: Sequence[Ints], rest: Sequence[int]
    ) -> tuple[int, list[Ints]]:
        """What is outside of blocks costs at a width, and what each option of the others adds.

        Args:
            fixed: The embedding's index to its size.
            sizes: For each axis the (groups, channels) of its options, [options, 2].
            rest: The other axes.
        """
        embed = int(fixed[self.embed][1])
        base = self._own("embed", embed, (1, embed))
        costs: list[Ints] = []
        for axis in rest:
            kind = self.kinds[axis]
            own = [self._own(kind, embed, (int(g), int(c))) for g, c in sizes[axis]]
            costs.append(np.array(own, dtype=np.int64))
        return base, costs

    def expected(self, device: torch.device | str = "cpu") -> Callable[[ExpectedSize], Tensor]:
        """The cost at expected sizes, differentiable.

        It is the expected cost as far as tables are linear in each size; the tables' bends between
        probable sizes are left out. The final choice is by `of`, and then by measuring.
        """
        attn = torch.tensor([kind == "attn" for kind in self.kinds], device=device)
        mlp = torch.tensor([kind == "mlp" for kind in self.kinds], device=device)

        def cost(sizes: ExpectedSize) -> Tensor:
            embed = sizes.units[self.embed]
            # Sizes of branches where they are there, and the probabilities that they are.
            there = (1 - sizes.gone.double()).clamp(min=1e-6)
            groups = sizes.groups.double() / there
            units = sizes.units.double() / there
            per_group = units / groups.clamp(min=1e-6)
            attentions = self.tables.of_attention(embed, groups[attn], per_group[attn])
            mlps = self.tables.of_mlp(embed, units[mlp])
            total = self.tables.of_rest(embed) + (there[attn] * attentions).sum()
            return self.scale * (total + (there[mlp] * mlps).sum())

        return cost

    def _interpolated(self, kind: str, embed: int, size: Size) -> int:
        """The time of an axis at a size, given the embedding."""
        groups, channels = size
        width = torch.tensor(float(embed))
        if kind == "embed":
            time = self.tables.of_rest(width)
        elif groups == 0 or channels == 0:
            return 0
        elif kind == "attn":
            time = self.tables.of_attention(
                width, torch.tensor(float(groups)), torch.tensor(float(channels))
            )
        else:
            time = self.tables.of_mlp(width, torch.tensor(float(channels)))
        return round(self.scale * float(time))


def check_timeable(model: Any, axes: Sequence[Axis]) -> None:
    """Check that the time of a model is the sum that tables give.

    Raises:
        InputError: It is not known to be.
    """
    family = family_of(model).name
    reason = None
    embeddings = [axis for axis in axes if axis.kind == "embed"]
    branches = [axis for axis in axes if axis.kind != "embed"]
    if family != "vit":
        reason = f"models of the family {family} have parts that such tables lack"
    elif len(embeddings) != 1 or embeddings[0].size[0] != 1:
        reason = "it has no single embedding of plain channels"
    elif any(not axis.branch for axis in branches):
        stays = next(axis.name for axis in branches if not axis.branch)
        reason = f"its {stays} cannot be taken out, so its time cannot be told from the others'"
    elif any(len({a.size for a in branches if a.kind == kind}) != 1 for kind in ("attn", "mlp")):
        reason = "its blocks differ in size"
    if reason is not None:
        raise InputError(
            f"{type(model).__name__}: a budget in milliseconds is for plain ViT and DeiT, and "
            f"{reason}; give one in gmacs or params"
        )

"""What a model costs at given sizes: multiply-accumulates per image, or parameters."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ofbnas.errors import InputError
from ofbnas.models.axes import Axis, Binding, reference_counts
from ofbnas.models.axes.axis import Kind, Shape, prefixes, shapes_of
from ofbnas.models.bimask import ExpectedSize
from ofbnas.models.uses import count_uses

Metric = Literal["macs", "params", "reference_macs"]
Sizes = Sequence[tuple[int, int]] | NDArray[np.int64]
IndexedBinding = tuple[int, Binding]  # with the index of its axis


class Branches(NamedTuple):
    """What branches cost beside their units: norms, scales and last biases lie along the stream.

    Attributes:
        constant: Cost of each axis' branch, whatever the widths are, [axes], whole numbers.
        linear: Cost of each axis' branch per unit of other axes, which it shares weights with,
            [axes, axes], whole numbers.
    """

    constant: NDArray[np.int64]
    linear: NDArray[np.int64]

    @staticmethod
    def none(num_axes: int) -> Branches:
        """Branches that cost nothing."""
        zeros = np.zeros((num_axes, num_axes), dtype=np.int64)
        return Branches(zeros[0], zeros)

    def at(self, widths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Cost of each branch at widths, [axes]."""
        costs: NDArray[np.int64] = self.constant + self.linear @ widths
        return costs

    def of(self, chosen: NDArray[np.bool_]) -> Branches:
        """Those of some axes; the others cost nothing."""
        return Branches(self.constant * chosen, self.linear * chosen[:, None])


@dataclass(frozen=True)
class Cost:
    """A cost as a function of widths w and groups g.

        C(w, g) = constant + linear @ w + grouped @ g + w @ quadratic @ w
                  - gone @ (branches.constant + branches.linear @ w),

    where gone is 1 for axes without units and 0 for others. The widths of a Vision Transformer meet
    at most in pairs (a weight joins two axes), so this form is exact. Its coefficients do not
    change when units are removed. An axis meets itself where attention goes with the stream.

    Attributes:
        names: The axes, in the order of the coefficients.
        constant: Cost that no axis changes.
        linear: Cost per unit, [axes], whole numbers.
        grouped: Cost per group, a head in an attention, [axes], whole numbers.
        quadratic: Cost per pair of units, [axes, axes], whole numbers, upper triangle.
        branches: What goes with the last unit of an axis; None if no axis can go.
        alike: Kinds of the axes, where only networks whose blocks are alike are allowed; else empty.
    """

    names: tuple[str, ...]
    constant: int
    linear: NDArray[np.int64]
    grouped: NDArray[np.int64]
    quadratic: NDArray[np.int64]
    branches: Branches | None = None
    alike: tuple[Kind, ...] = ()

    def of(self, sizes: Sizes) -> int:
        """The cost at sizes (groups, channels), in the order of `names`.

        A linear layer of weights from an embedding of 8 units to an MLP of 32:

        >>> none = np.zeros(2, dtype=np.int64)
        >>> cost = Cost(("embed", "mlp"), 0, none, none, np.array([[0, 1], [0, 0]]))
        >>> cost.of([(1, 8), (1, 32)])
        256
        """
        pairs = np.asarray(sizes, dtype=np.int64).reshape(-1, 2)
        groups, channels = pairs.T
        w = groups * channels
        linear = int(self.linear @ w)
        grouped = int(self.grouped @ groups)
        quadratic = int(w @ self.quadratic @ w)
        total = self.constant + linear + grouped + quadratic
        if self.branches is None:
            return total
        gone = w == 0
        return total - int(self.branches.at(w)[gone].sum())

    def meeting(self) -> NDArray[np.int64]:
        """Cost per pair of units in either order, [axes, axes]; axes meet where it is not 0."""
        return self.quadratic + self.quadratic.T

    def split(self, may_go: NDArray[np.bool_]) -> tuple[Cost, Branches]:
        """The cost without the branches of some axes, and what those add unless they are gone.

        Args:
            may_go: Which axes, [axes].
        """
        if self.branches is None:
            return self, Branches.none(len(self.names))
        added = self.branches.of(may_go)
        constant = self.constant - int(added.constant.sum())
        linear = self.linear - added.linear.sum(0)
        return replace(self, constant=constant, linear=linear, branches=None), added

    def expected(self, device: torch.device | str = "cpu") -> Callable[[ExpectedSize], Tensor]:
        """The cost as a differentiable function of the axes' expected sizes.

        It is exact in expectation for axes that are decided independently and do not meet
        themselves: then E[w_a w_b] = E[w_a] E[w_b].

        Returns:
            A function of expected sizes [axes] that gives the cost, [], in float64.
        """
        # float32 would round costs of billions.
        as_float64 = partial(
            torch.as_tensor,
            dtype=torch.float64,
            device=device,
        )
        linear = as_float64(self.linear)
        grouped = as_float64(self.grouped)
        quadratic = as_float64(self.quadratic)
        branches = self.branches or Branches.none(len(self.names))
        branch_constant = as_float64(branches.constant)
        branch_linear = as_float64(branches.linear)

        def cost(sizes: ExpectedSize) -> Tensor:
            w = sizes.units.double()
            g = sizes.groups.double()
            total = self.constant + linear @ w
            total = total + grouped @ g
            total = total + w @ quadratic @ w
            return total - sizes.gone.double() @ (branch_constant + branch_linear @ w)

        return cost


class _Counts(NamedTuple):
    """What a metric counts.

    Attributes:
        uses: How often each tensor counts, by name.
        per_unit: What each axis adds per unit beside its tensors, in the order of the axes.
        per_group: What each axis adds per group beside its tensors, in the same order.
        constant: What is counted beside all tensors and axes.
    """

    uses: Counter[str]
    per_unit: Sequence[int]
    per_group: Sequence[int]
    constant: int = 0


class _Term(NamedTuple):
    """The cost of one tensor.

    Attributes:
        coefficient: Cost per unit or group of each axis that it lies along.
        by_units: Indices of the axes that it lies along with their units.
        by_groups: Indices of the axes that it lies along with their groups.
    """

    coefficient: int
    by_units: list[int]
    by_groups: list[int]


def cost_of(
    model: nn.Module,
    axes: Sequence[Axis],
    metric: Metric = "macs",
) -> Cost:
    """The cost of a model as a function of its axes' sizes.

    Multiply-accumulates are those of matrix products and convolutions for one image, half of what
    `torch.utils.flop_counter` counts; norms, biases and softmax are not counted, as there. OFB's
    published totals count those too, and leave the class token out: that is "reference_macs".

    Args:
        model: A timm model.
        axes: Its axes, at its present sizes.
        metric: "macs", "params" or "reference_macs".

    Raises:
        InputError: The cost of a tensor is not of the form of `Cost`, or OFB has no formula for
            the model.
    """
    shapes = shapes_of(dict(model.named_parameters()))
    counts = _counts(model, axes, metric, list(shapes))
    constant = counts.constant
    linear = np.array(counts.per_unit, dtype=np.int64)
    grouped = np.array(counts.per_group, dtype=np.int64)
    quadratic = np.zeros((len(axes), len(axes)), dtype=np.int64)
    branches = Branches.none(len(axes))
    branch_of = {part: index for index, axis in enumerate(axes) for part in axis.branch}
    along = _bindings_by_dimension(axes, shapes)
    for name, shape in shapes.items():
        bindings = [along[name, dim] for dim in range(len(shape))]
        term = _term(shape, bindings, counts.uses[name])
        for axis in [branch_of[prefix] for prefix in prefixes(name) if prefix in branch_of]:
            _add_to_branch_(branches, axis, term, name)
        # No axis, one axis by its units or its groups, or a pair of axes by their units.
        match term.by_units, term.by_groups:
            case [], []:
                constant += term.coefficient
            case [axis], []:
                linear[axis] += term.coefficient
            case [], [axis]:
                grouped[axis] += term.coefficient
            case [one, other], []:
                low = min(one, other)
                high = max(one, other)
                quadratic[low, high] += term.coefficient
            case _:
                num_axes = len(term.by_units) + len(term.by_groups)
                raise InputError(f"{name} lies along {num_axes} axes in a way a cost cannot follow")
    return Cost(
        names=tuple(axis.name for axis in axes),
        constant=constant,
        linear=linear,
        grouped=grouped,
        quadratic=quadratic,
        branches=branches if branch_of else None,
        alike=tuple(axis.kind for axis in axes if axis.alike),
    )


def _add_to_branch_(
    branches: Branches,
    axis: int,
    term: _Term,
    name: str,
) -> None:
    """Add the cost of a tensor to the branch that it goes with.

    A tensor that lies along the branch's own axis has no slices, and costs nothing, if that is
    gone; it does not count here.
    """
    if axis in term.by_units or axis in term.by_groups:
        return
    match term.by_units, term.by_groups:
        case [], []:
            branches.constant[axis] += term.coefficient
        case [other], []:
            branches.linear[axis, other] += term.coefficient
        case _:
            raise InputError(f"{name} goes with a branch in a way a cost cannot follow")


def _counts(
    model: nn.Module,
    axes: Sequence[Axis],
    metric: Metric,
    tensors: Iterable[str],
) -> _Counts:
    """What a metric counts of a model with these axes and tensors."""
    none = [0] * len(axes)
    if metric == "params":
        return _Counts(Counter(dict.fromkeys(tensors, 1)), none, none)
    if metric == "macs":
        counted = count_uses(model)
        products = [axis.products for axis in axes]
        return _Counts(counted.uses, products, none, constant=counted.rest)
    reference = reference_counts(model)
    per_unit = [reference.per_unit[axis.name] for axis in axes]
    per_group = [reference.per_group[axis.name] for axis in axes]
    return _Counts(reference.tensors, per_unit, per_group)


def _term(
    shape: Shape,
    bindings: Sequence[Sequence[IndexedBinding]],
    uses: int,
) -> _Term:
    """The cost of a tensor: its uses times the product of its lengths.

    A length that follows an axis is the axis' number of units (or groups), times the copies of
    them: the copies belong to the coefficient, and the axis says which coefficient.

    Args:
        shape: The tensor's shape.
        bindings: What lies along each of its dimensions.
        uses: How often each of its elements counts.
    """
    coefficient = uses
    by_units: list[int] = []
    by_groups: list[int] = []
    for length, bindings_of_dim in zip(shape, bindings, strict=True):
        for index, binding in bindings_of_dim:
            if binding.per_group:
                by_groups.append(index)
            else:
                by_units.append(index)
        if bindings_of_dim:
            _, first = bindings_of_dim[0]
            coefficient *= first.copies
        else:
            coefficient *= length
    return _Term(coefficient, by_units, by_groups)


def _bindings_by_dimension(
    axes: Sequence[Axis],
    shapes: Mapping[str, Shape],
) -> defaultdict[tuple[str, int], list[IndexedBinding]]:
    """The bindings along a dimension, by the tensor's name and the dimension."""
    along: defaultdict[tuple[str, int], list[IndexedBinding]] = defaultdict(list)
    for index, axis in enumerate(axes):
        for binding in axis.bindings:
            if binding.tensor not in shapes:
                continue  # a buffer
            num_dims = len(shapes[binding.tensor])
            dim = binding.dim % num_dims  # it may count from the end
            along[binding.tensor, dim].append((index, binding))
    return along


def sizes_of(axes: Sequence[Axis]) -> list[tuple[int, int]]:
    """Present sizes, for `Cost.of`."""
    return [axis.size for axis in axes]


def least_sizes(axes: Sequence[Axis]) -> list[tuple[int, int]]:
    """Sizes at the smallest options, for `Cost.of`."""
    return [axis.least_size() for axis in axes]

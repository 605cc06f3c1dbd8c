"""The removal of whole branches: of an attention or an MLP without units, and of blocks without both.

A block adds its branches to the residual stream, x + drop_path(scale(attn(norm(x)))). Where the
attention is gone, zeros are added in its place, and the norm and the scale go with it. A block that
adds nothing any more is passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from ofbnas.models.axes.axis import GONE, Axis, Kind, all_bindings, full, is_part

# What serves one branch of a block alone, by the branch's name: norm, scale, stochastic depth.
BESIDE = {
    "attn": ("norm1", "ls1", "gamma_1", "drop_path1"),
    "mlp": ("norm2", "ls2", "gamma_2", "drop_path2"),
}


class Zeros(nn.Module):
    """Stands where an attention or an MLP is gone: it adds nothing to the residual stream."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Zeros like x, expanded from a single one."""
        return x.new_zeros(()).expand_as(x)


class PassedOver(nn.Identity):
    """Stands where a block has lost all of its branches: it gives what it is given.

    timm also calls blocks with masks and positions, which torch's own Identity would not take.

    Attributes:
        attn, mlp: What stands for the branches, under their names in the block.
    """

    def __init__(self, branches: Iterable[str]) -> None:
        super().__init__()
        for name in branches:
            self.add_module(name, Zeros())

    def forward(self, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The input itself."""
        return input


def branch_of(model: nn.Module, name: str) -> tuple[str, ...]:
    """The modules and parameters that go with an attention or an MLP when its block loses it."""
    block_name, _, kind = name.rpartition(".")
    block = model.get_submodule(block_name)
    branch = [name]
    for part in BESIDE[kind]:
        if isinstance(getattr(block, part, None), nn.Module | nn.Parameter):
            branch.append(f"{block_name}.{part}")
    return tuple(branch)


def branch_constants(
    branches: Iterable[Axis], axes: Sequence[Axis], model: nn.Module
) -> dict[str, list[str]]:
    """The vectors by which branches add to the residual stream whatever their units are.

    They are the bias of the last layer or the weight and bias of a norm behind it, and those of a
    norm of the units.

    Args:
        branches: Axes of branches that may go.
        axes: All axes of the model.
        model: The model.

    Returns:
        The names of the vectors by the axis' name.
    """
    vectors = {name for name, parameter in model.named_parameters() if parameter.ndim == 1}
    written = [binding.tensor for _, binding in all_bindings(axes) if binding.writes]
    constants: dict[str, list[str]] = {}
    for axis in branches:
        last = [name for name in written if is_part(name, axis.branch)]
        of_units = [binding.tensor for binding in axis.bindings if not binding.masked]
        constants[axis.name] = [name for name in (*last, *of_units) if name in vectors]
    return constants


def gone_axis(name: str) -> Axis:
    """The axis of an attention or an MLP that is gone: it has nothing to search."""
    kind: Kind = "attn" if name.endswith(".attn") else "mlp"
    return Axis(name, kind, GONE, bindings=(), options=full(*GONE))


def remove_branches_(model: nn.Module, axes: Iterable[Axis]) -> None:
    """Replace the branches of axes that are gone by modules without parameters.

    Args:
        model: The model; branches that it has lost before stay as they are.
        axes: Its axes at the sizes that it is to have.
    """
    for axis in axes:
        if not axis.gone or isinstance(model.get_submodule(axis.name), Zeros):
            continue
        for part in axis.branch:
            stands_for = Zeros() if part == axis.name else nn.Identity()
            _replace(model, part, stands_for)
        block_name = axis.name.rpartition(".")[0]
        block = model.get_submodule(block_name)
        if next(block.parameters(), None) is None:
            branches = [name for name, part in block.named_children() if isinstance(part, Zeros)]
            _replace(model, block_name, PassedOver(branches))


def stand_ins_of(model: nn.Module) -> dict[str, str]:
    """What stands for the branches that a model has lost, by the names of what is gone.

    Returns:
        "zeros" for an attention or an MLP; "same" for a norm or a block, which gives what it is
        given; "one" for a parameter that scaled a branch.
    """
    stand_ins: dict[str, str] = {}
    for name, module in model.named_modules():
        outer, _, kind = name.rpartition(".")
        if outer in stand_ins:  # a part of a block that is passed over
            continue
        if isinstance(module, PassedOver):
            stand_ins[name] = "same"
        elif isinstance(module, Zeros):
            stand_ins[name] = "zeros"
            block = model.get_submodule(outer)
            for part in BESIDE[kind]:
                stands_for = getattr(block, part, None)
                if isinstance(stands_for, nn.Module):
                    stand_ins[f"{outer}.{part}"] = "same"
                elif stands_for is not None:
                    stand_ins[f"{outer}.{part}"] = "one"
    return stand_ins


def _replace(model: nn.Module, path: str, stands_for: nn.Module) -> None:
    """Replace a module, or a parameter that scales a branch, which a plain 1 stands for."""
    owner_name, _, name = path.rpartition(".")
    owner = model.get_submodule(owner_name)
    if name in owner._parameters:
        delattr(owner, name)
        setattr(owner, name, 1.0)
    else:
        setattr(owner, name, stands_for.train(owner.training))

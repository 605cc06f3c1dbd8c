"""Hooks into the making of a model: to count what it takes, and to leave its parameters empty.

Two of torch's tools make that possible without a change to timm. A dispatch mode
(`TorchDispatchMode`) sees every operation on tensors in its `with` block, those that initialize
weights included, and may count or replace its result. A registration hook is called whenever a
module or parameter is assigned to a module, and may replace it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Dispatch(TorchDispatchMode):
    """A dispatch mode: subclasses say what an operation gives inside of its `with` block."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return self.result_of(func, args, kwargs or {})

    def result_of(
        self,
        operation: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """The result of an operation on tensors."""
        raise NotImplementedError


class CountBytes(_Dispatch):
    """Counts the bytes of all tensors that are made, on the meta device as if they were real.

    A model may compute a small buffer from a huge tensor that is then dropped, so the tensors of
    the finished model do not show how much memory its making takes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def result_of(
        self,
        operation: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """The operation's own result; its bytes are counted if it is new memory."""
        result = operation(*args, **kwargs)
        # A result that aliases an argument, as a view of it or the argument itself written in
        # place, is no new memory. The operation's schema says so.
        aliases = any(returned.alias_info for returned in operation._schema.returns)
        if not aliases:
            tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
            self.bytes += sum(tensor.nbytes for tensor in tensors)
        return result


class SkipWritesToHollow(_Dispatch):
    """Skips operations that would write into a hollow tensor in place, as initial values are."""

    def result_of(
        self,
        operation: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """The operation's own result, or the tensor that it would have written into."""
        # In-place operations write into their first argument, and return it.
        if operation._schema.is_mutable and args and is_hollow(args[0]):
            return args[0]
        return operation(*args, **kwargs)


def emptied(
    module: nn.Module,
    name: str,
    parameter: nn.Parameter,
) -> nn.Parameter:
    """A hollow parameter instead of a real one: all of its elements are one in memory.

    A scalar that is expanded to the shape has stride 0 in each dimension.
    """
    scalar = parameter.detach().new_zeros(())
    hollow = scalar.expand(parameter.shape)
    return nn.Parameter(hollow, requires_grad=parameter.requires_grad)


def is_hollow(value: Any) -> bool:
    """Whether a tensor has less memory than its elements would take."""
    if not isinstance(value, Tensor):
        return False
    return value.untyped_storage().nbytes() < value.nbytes


class CountModules:
    """A hook that counts modules as they become parts of others, and refuses those beyond a limit.

    The meta device costs no memory, but each module takes time.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.count = 0

    def __call__(
        self,
        module: nn.Module,
        name: str,
        part: nn.Module | None,
    ) -> None:
        """Count one more."""
        self.count += 1
        if self.count > self.limit:
            raise ValueError(f"it has more than {self.limit:,} modules, which no model has")


def in_this_thread(hook: Callable[..., Any]) -> Callable[..., Any]:
    """A hook that acts only on what this thread makes.

    torch's registration hooks are global, so other threads that make models would be hooked too.
    """
    owner = threading.get_ident()

    def only_here(*args: Any) -> Any:
        if threading.get_ident() != owner:
            return None  # the module or parameter stays as it is
        return hook(*args)

    return only_here

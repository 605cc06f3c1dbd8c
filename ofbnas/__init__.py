"""ofbnas: single-stage architecture search that compresses Vision Transformers inside a cost budget."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ofbnas.axes import axes
    from ofbnas.config import FinetuneConfig, SearchConfig
    from ofbnas.data import load_data
    from ofbnas.errors import InputError
    from ofbnas.finetune import finetune
    from ofbnas.front import front, hypervolume
    from ofbnas.search import search
    from ofbnas.study_file import load_study
    from ofbnas.subnet import Subnet, load_subnet
    from ofbnas.supernet import Supernet
    from ofbnas.table import read_table
    from ofbnas.training import evaluate

_HOMES = {
    "FinetuneConfig": "config",
    "InputError": "errors",
    "SearchConfig": "config",
    "Subnet": "subnet",
    "Supernet": "supernet",
    "axes": "axes",
    "evaluate": "training",
    "finetune": "finetune",
    "front": "front",
    "hypervolume": "front",
    "load_data": "data",
    "load_study": "study_file",
    "load_subnet": "subnet",
    "read_table": "table",
    "search": "search",
}

__all__ = [
    "FinetuneConfig",
    "InputError",
    "SearchConfig",
    "Subnet",
    "Supernet",
    "axes",
    "evaluate",
    "finetune",
    "front",
    "hypervolume",
    "load_data",
    "load_study",
    "load_subnet",
    "read_table",
    "search",
]


def __getattr__(name: str) -> Any:
    """Import what is public when it is first asked for, so that `import ofbnas` stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


class _Package(ModuleType):
    """This package: what is public keeps its name, although some rooms are called like the function they are for."""

    def __setattr__(self, name: str, value: Any) -> None:
        """Importing a module sets it as an attribute of its package, which is not wanted for a public name."""
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

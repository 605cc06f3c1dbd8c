"""ofbnas: architecture search that compresses Vision Transformers within a cost budget."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ofbnas.config import FinetuneConfig, SearchConfig
    from ofbnas.config.study_file import load_study
    from ofbnas.errors import InputError
    from ofbnas.models.axes import axes
    from ofbnas.models.foreign import to_timm
    from ofbnas.models.subnet import Subnet
    from ofbnas.models.supernet import Supernet
    from ofbnas.nas.compressed import compress
    from ofbnas.nas.own_loop import SearchRun
    from ofbnas.nas.search import search
    from ofbnas.study.networks import load_subnet
    from ofbnas.table.front import front, hypervolume
    from ofbnas.table.history import read_history
    from ofbnas.table.store import read_table
    from ofbnas.training.data import Data, data_from, load_data
    from ofbnas.training.evaluation import evaluate
    from ofbnas.training.finetune import finetune

# Where each public name is defined. No module or package directly below `ofbnas` may have one of
# these names: importing it would replace the public object by the module.
_HOMES = {
    "Data": "training.data",
    "FinetuneConfig": "config",
    "InputError": "errors",
    "SearchConfig": "config",
    "SearchRun": "nas.own_loop",
    "Subnet": "models.subnet",
    "Supernet": "models.supernet",
    "axes": "models.axes",
    "compress": "nas.compressed",
    "data_from": "training.data",
    "evaluate": "training.evaluation",
    "finetune": "training.finetune",
    "front": "table.front",
    "hypervolume": "table.front",
    "load_data": "training.data",
    "load_study": "config.study_file",
    "load_subnet": "study.networks",
    "read_history": "table.history",
    "read_table": "table.store",
    "search": "nas.search",
    "to_timm": "models.foreign",
}

__all__ = [
    "Data",
    "FinetuneConfig",
    "InputError",
    "SearchConfig",
    "SearchRun",
    "Subnet",
    "Supernet",
    "axes",
    "compress",
    "data_from",
    "evaluate",
    "finetune",
    "front",
    "hypervolume",
    "load_data",
    "load_study",
    "load_subnet",
    "read_history",
    "read_table",
    "search",
    "to_timm",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import ofbnas` stays light."""
    if name == "__version__":
        from importlib.metadata import version  # which takes longer than all that is imported here

        return version("ofbnas")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_HOMES[name]}")
    value = getattr(module, name)
    globals()[name] = value  # from now on, the name is found without this function
    return value


def __dir__() -> list[str]:
    return __all__

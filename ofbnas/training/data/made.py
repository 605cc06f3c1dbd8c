"""Data sets that a Python function of the user makes, given by its name."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from ofbnas.errors import InputError
from ofbnas.training.data.base import Data


def made_data(
    name: str,
    *,
    path: Path | str = ".",
    kwargs: Mapping[str, Any] | None = None,
    num_classes: int,
    train_images: int | None = None,
) -> Data:
    """The data set that a function makes. This runs the user's code.

    Args:
        name: "module:function"; the function returns a `Data`.
        path: Folder of the module, which is put in front of Python's path; processes that read
            images find the module there, too.
        kwargs: Arguments of the function.
        num_classes: Number of classes that the data set must have.
        train_images: Number of training images that it must have.

    Raises:
        InputError: There is no such function, or it returns something else.
    """
    module_name, _, function_name = name.partition(":")
    module = _imported(module_name, Path(path).expanduser().resolve(), name)
    function = getattr(module, function_name, None)
    if not callable(function):
        raise InputError(
            f"data.name {name}: {module.__file__} has no function {function_name}; "
            "expected one that returns an ofbnas.Data"
        )
    data = function(**(kwargs or {}))
    if not isinstance(data, Data):
        raise InputError(
            f"data.name {name}: returns a {type(data).__name__}, expected an ofbnas.Data, such as "
            "ofbnas.data_from(train, val, num_classes=10) makes"
        )
    expected = {"num_classes": num_classes, "train_images": train_images}
    for field, number in expected.items():
        has = getattr(data, field)
        if number not in (None, has):
            raise InputError(f"data.{field} is {number:,}, but {name} makes data with {has:,}")
    return data


def _imported(module: str, folder: Path, name: str) -> ModuleType:
    """A module of a folder, or an installed one.

    Raises:
        InputError: There is none.
    """
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        # Where the module is there, but lacks something that it imports, the traceback helps more.
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise InputError(
            f"data.name {name}: there is no module {error.name} in {folder}, nor is it installed; "
            "give the folder that it is in as data.path"
        ) from None

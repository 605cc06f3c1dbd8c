"""Files of weights in safetensors format: their hash and the tensors in their headers; no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open

from ofbnas.errors import InputError, one_line
from ofbnas.files.untrusted import check_regular, visible

# The files of a saved subnet's folder.
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
CARD = "README.md"
LOADER = "load.py"
# Those that are shared with a table: never code.
SUBNET_FILES = (CONFIG, WEIGHTS, CARD)
OTHER = "the weights belong to another architecture"
MAX_SHOWN = 120  # characters of a tensor's name in an error message
FLOATS = ("F64", "F32", "F16", "BF16")  # safetensors' names of the types that a model computes in


class Stored(NamedTuple):
    """What the header of a file of weights declares of a tensor.

    Attributes:
        shape: Its shape.
        floating: Whether it holds floating-point numbers.
    """

    shape: tuple[int, ...]
    floating: bool


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_weights(weights: Path, expected: Mapping[str, Stored]) -> None:
    """Check that a .safetensors file has the tensors of an architecture, by its header alone.

    Memory is allocated only for the tensors of a file that has passed.

    Raises:
        InputError: It has others, or is not a .safetensors file.
    """
    check_regular(weights)
    try:
        stored = _read_header(weights)
    except (SafetensorError, OSError) as error:
        reason = visible(one_line(error))
        raise InputError(f"{weights}: not weights in safetensors format ({reason})") from None
    check_tensors(stored, expected, weights)


def _read_header(weights: Path) -> dict[str, Stored]:
    """The tensors that a .safetensors file has, without their values."""
    stored = {}
    with safe_open(weights, framework="np") as file:
        for name in file.keys():  # noqa: SIM118 (the file is not iterable)
            tensor = file.get_slice(name)
            shape = tuple(tensor.get_shape())
            stored[name] = Stored(shape, floating=tensor.get_dtype() in FLOATS)
    return stored


def check_tensors(
    stored: Mapping[str, Stored],
    expected: Mapping[str, Stored],
    where: Path,
) -> None:
    """Check that tensors are those of a model: no name is missing or added, shapes and types agree.

    Raises:
        InputError: They are not.
    """
    names = stored.keys() | expected.keys()
    for name in sorted(names):
        tensor = visible(name)[:MAX_SHOWN]
        actual = stored.get(name)
        wanted = expected.get(name)
        if wanted is None:
            shape = stored[name].shape
            raise InputError(
                f"{where}: has {tensor} with shape {shape}, which is not expected: {OTHER}"
            )
        if actual is None:
            raise InputError(
                f"{where}: lacks {tensor}, expected with shape {wanted.shape}: {OTHER}"
            )
        if actual.shape != wanted.shape:
            raise InputError(
                f"{where}: {tensor} has shape {actual.shape}, expected {wanted.shape}: {OTHER}"
            )
        if actual.floating != wanted.floating:
            kind = "floating-point numbers" if wanted.floating else "whole numbers"
            raise InputError(f"{where}: {tensor} holds values of another type, expected {kind}")

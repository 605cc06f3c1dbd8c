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
MAX_LISTED = 3  # differing tensors in an error message
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
    where: object,
    otherwise: str = OTHER,
) -> None:
    """Check that tensors are those of a model: no name is missing or added, shapes and types agree.

    Args:
        stored: The tensors by name.
        expected: Those of the model.
        where: What the tensors are from, for messages.
        otherwise: What it means if they differ, for messages.

    Raises:
        InputError: They differ; the message has the first differences.
    """
    differences = []
    for name in sorted(stored.keys() | expected.keys()):
        difference = _difference(visible(name)[:MAX_SHOWN], stored.get(name), expected.get(name))
        if difference is not None:
            differences.append(difference)
    if not differences:
        return
    listed = "; ".join(differences[:MAX_LISTED])
    more = len(differences) - MAX_LISTED
    rest = f"; and {more} more differ" if more > 0 else ""
    raise InputError(f"{where}: {listed}{rest}: {otherwise}")


def _difference(tensor: str, actual: Stored | None, wanted: Stored | None) -> str | None:
    """How a tensor differs from the expected one, None if it does not.

    Args:
        tensor: Its name.
        actual: The tensor, None if there is none.
        wanted: The expected one, None if none is expected.
    """
    if actual is not None and wanted is None:
        return f"has {tensor} with shape {actual.shape}, which is not expected"
    if wanted is None or actual == wanted:
        return None
    if actual is None:
        return f"lacks {tensor}, expected with shape {wanted.shape}"
    if actual.shape != wanted.shape:
        return f"{tensor} has shape {actual.shape}, expected {wanted.shape}"
    kind = "floating-point numbers" if wanted.floating else "whole numbers"
    return f"{tensor} holds values of another type, expected {kind}"

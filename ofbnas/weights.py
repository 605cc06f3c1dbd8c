"""Files of weights beside a table: where they lie, and whether they are those that were recorded; no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ofbnas import table
from ofbnas.errors import InputError


def weights_file(source: Path, weights: str) -> Path | None:
    """The file of a row's weights, None where it is not there.

    Args:
        source: The table.
        weights: The path in a row's `weights`, which may come from a stranger.

    Raises:
        InputError: The path leaves the table's folder, through a link too.
    """
    root = table.home(source).resolve()
    try:
        file = (root / weights).resolve()
        there = file.is_file()
    except (OSError, ValueError, RuntimeError):
        raise InputError(f"{source}: {weights[:80]!r} is no path of weights") from None
    if not file.is_relative_to(root):
        raise InputError(f"{source}: the weights {weights[:80]} lie outside its folder")
    return file if there else None


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_shapes(weights: Path, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Check, before anything is allocated, that a .safetensors file has the tensors of an architecture.

    Raises:
        InputError: It has others, or is no such file.
    """
    try:
        with safe_open(weights, framework="np") as file:
            stored = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{weights}: no weights in safetensors format ({error})") from None
    if odd := sorted(name for name in stored.keys() | expected.keys() if stored.get(name) != expected.get(name)):
        raise InputError(
            f"{weights}: {odd[0]} has shape {stored.get(odd[0])}, expected {expected.get(odd[0])}: "
            "the weights belong to another architecture"
        )

"""Repair of a study's folder: damaged files are set aside, temporary files removed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ofbnas.errors import InputError
from ofbnas.files import documents, durable
from ofbnas.table import layout, parquet


def repair(folder: Path) -> None:
    """Set damaged files of a study aside, so that they are created anew.

    The caller holds the driver's lock. A trial without a row runs again, under its number and with
    its values. A study's settings are written again from the file that it is run with.
    """
    durable.clear(folder)
    _set_aside_if(_check_settings, folder / "study.yaml")
    for part in (layout.FOLDER, layout.HISTORY_FOLDER):
        for file in sorted((folder / part).glob("trial-*.parquet")):
            _set_aside_if(parquet.read, file)


def _set_aside_if(check: Callable[[Path], object], file: Path) -> None:
    """Set a file aside if a check refuses it."""
    try:
        check(file)
    except FileNotFoundError:
        return
    except InputError as error:
        durable.set_aside(file, error)


def _check_settings(file: Path) -> None:
    """Check that a study's settings are there, whatever they are.

    Raises:
        InputError: The file is empty, or is not YAML.
    """
    text = documents.read_text(file, "a .yaml file")
    tree, _ = documents.parse_yaml(text, file)
    if not isinstance(tree, dict):
        raise InputError(f"{file}: holds no settings")

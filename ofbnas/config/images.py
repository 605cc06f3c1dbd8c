"""Data settings of a table without its study: what its rows record, and what a user adds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ofbnas.config.fields import first_error
from ofbnas.config.model import DataConfig, kind_of_data
from ofbnas.config.section import Section
from ofbnas.errors import InputError
from ofbnas.files.documents import parse_json

# Fields that depend on the machine: a table does not record them, and they are ignored if one does.
MACHINE_FIELDS = ("path", "workers")
MAX_JSON = 100_000  # characters


class _Study(Section):
    """A study of which only the data are known."""

    data: DataConfig


def recorded_data(text: str | None, where: object) -> dict[str, Any]:
    """The data settings that a row of a table records; empty for a row of an older version.

    Args:
        text: The row's column `data`, which may come from a stranger.
        where: What it was read from, for messages.

    Raises:
        InputError: It is not a section of a study.
    """
    if text is None:
        return {}
    tree = parse_json(text, where, MAX_JSON)
    if not isinstance(tree, dict):
        raise InputError(f"{where}: has data that is not a section of a study")
    return {field: value for field, value in tree.items() if field not in MACHINE_FIELDS}


def completed_data(
    known: Mapping[str, Any], given: Mapping[str, Any], num_classes: int, where: object
) -> DataConfig:
    """Known data settings with others in their place.

    Args:
        known: The settings; dropped if `given` names a data set of another kind.
        given: Field to value.
        num_classes: Number of classes, used where neither gives it; 0 if nothing says it.
        where: What they come from, for messages.

    Raises:
        InputError: Together they are not a section of a study.
    """
    tree = {**known, **given}
    # Each kind of data set has its own fields.
    if kind_of_data(known) != kind_of_data(tree):
        tree = dict(given)
    if kind_of_data(tree) != "small" and "num_classes" not in tree:
        if not num_classes:
            raise InputError(
                f"{where}: the network has no classifier, so nothing says how many classes "
                f"{tree.get('name', 'its data')} has; give num_classes, too, as --data num_classes=10"
            )
        tree["num_classes"] = num_classes
    try:
        return _Study.model_validate({"data": tree}).data
    except ValidationError as error:
        mistake = first_error(error, {"data": tree}, _Study)
        raise InputError(f"{where}: {mistake.message}") from None

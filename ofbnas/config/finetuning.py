"""The settings of a fine-tuning that is not part of a trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from ofbnas.config.fields import first_error, set_below
from ofbnas.config.section import Section
from ofbnas.config.study import StudyConfig
from ofbnas.config.training import FinetuneConfig
from ofbnas.errors import InputError

PREFIX = "finetune."


class _Study(Section):
    """A study of which only the fine-tuning is known."""

    finetune: FinetuneConfig


def finetune_settings(
    study: StudyConfig | None,
    swept: Mapping[str, Any],
    settings: Sequence[str],
    *,
    distill: bool,
) -> FinetuneConfig:
    """The fine-tuning of a trial, changed by the command line.

    Args:
        study: The study; None for a table without one, of which nothing is known.
        swept: The trial's values of swept fields by dotted name; others than those of fine-tuning
            are ignored.
        settings: Changes, such as "finetune.epochs=5".
        distill: Whether to distil: as the study does or, if it does not, with the defaults.

    Raises:
        InputError: A field is unknown or missing, or a value is not allowed.
    """
    tree: dict[str, Any] = {"finetune": {}}
    taught = None
    if study is not None:
        values = {name: value for name, value in swept.items() if name.startswith(PREFIX)}
        study = study.with_values(values)
        taught = study.search.distill
        if study.finetune is not None:
            tree["finetune"] = study.finetune.model_dump()
            taught = study.finetune.distill
    if not distill:
        tree["finetune"]["distill"] = None
    else:
        tree["finetune"]["distill"] = {} if taught is None else taught.model_dump()
    expected = "a field of finetune and its value, for example --set finetune.batch_size=128"
    set_below(tree, settings, PREFIX, expected)
    try:
        return _Study.model_validate(tree).finetune
    except ValidationError as error:
        mistake = first_error(error, tree, _Study)
        hint = ": give --epochs" if mistake.message == "finetune.epochs is missing" else ""
        raise InputError(f"{mistake.message}{hint}") from None


def distils(study: StudyConfig | None) -> bool:
    """Whether a study distils where it fine-tunes or, if it does not fine-tune, where it searches."""
    if study is None:
        return False
    section = study.search if study.finetune is None else study.finetune
    return section.distill is not None

"""Settings that may change in the middle of a search, as population-based training changes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ofbnas.config import StudyConfig
from ofbnas.errors import InputError
from ofbnas.models.axes import Axis
from ofbnas.nas.stage import settings_of
from ofbnas.training.checkpoint import readdress

# Read anew at each step or each decision, and nothing in a checkpoint depends on their values.
PERTURBABLE = (
    "search.lr",
    "search.weight_decay",
    "search.clip_grad",
    "search.label_smoothing",
    "search.augment",
    "search.distill.weight",
    "search.distill.temperature",
    "search.one_hot_weight",
    "search.importance.norm_weight",
    "search.budget_weight",
    "search.budget_ascent",
    "search.threshold",
    "search.alpha.lr",
    "search.pmim.weight",
    "search.pmim.mask_ratio",
    "search.pmim.decoder.lr",
    "finetune",  # it begins after the search
)
# Why others may not; the first that covers a field says it.
_WHY_NOT = {
    "search.budget": "options have been removed for the budget that it began with",
    "search.importance": "it acts on the start of a search alone",
    "search.alpha.spread": "it acts on the start of a search alone",
    "search.optimizer": "the optimizer's state is that of another one",
    "search.betas": "the optimizer's moments are means over other spans",
    "search.alpha.betas": "the optimizer's moments are means over other spans",
    "search.ema": "the average of the weights has another span",
    "search.epochs": "schedules and decisions are placed by it",
    "search.batch_size": "steps, and with them schedules and decisions, are counted by it",
    "search.decide_by": "schedules and decisions are placed by it",
    "search.decision_interval": "decisions are placed by it",
}
_WHY_ELSE = "it shapes a search as a whole"


class Origin(NamedTuple):
    """The trial that a checkpoint was written by.

    Attributes:
        trial: Its number.
        values: Its swept values by dotted name.
    """

    trial: int
    values: Mapping[str, Any]


def go_on_from(
    checkpoint: Path, config: StudyConfig, axes: Sequence[Axis], was: Origin, now: Origin
) -> None:
    """Let one trial go on from the checkpoint of another's search, or with other values.

    Args:
        checkpoint: The search's checkpoint, which is rewritten.
        config: The study.
        axes: The parent's.
        was: The trial that wrote it.
        now: The trial that goes on.

    Raises:
        InputError: A value changed that may not change in the middle of a search.
        StaleCheckpointError: The checkpoint is not that of `was`.
    """
    before, after = config.with_values(was.values), config.with_values(now.values)
    for name in sorted({*was.values, *now.values}):
        old, new = _value(before, name), _value(after, name)
        if old != new:
            _check(name, old, new)
    readdress(
        checkpoint,
        settings_of(before.search, config.seed + was.trial, axes),
        settings_of(after.search, config.seed + now.trial, axes),
    )


def _check(name: str, old: Any, new: Any) -> None:
    """Check that a field may go from one value to another in the middle of a search.

    Raises:
        InputError: It may not.
    """
    change = f"{name} goes from {old} to {new} in the middle of a search"
    if not _covered(name, PERTURBABLE):
        why = next((why for field, why in _WHY_NOT.items() if _covered(name, [field])), _WHY_ELSE)
        raise InputError(f"{change}, but {why}; perturb these alone: {', '.join(PERTURBABLE)}")
    if name in ("search.pmim.weight", "search.pmim.mask_ratio") and bool(old) != bool(new):
        raise InputError(
            f"{change}, but masked image modelling, which 0 turns off, has a decoder from the start "
            "or never; keep it above 0, or at 0"
        )


def _covered(name: str, fields: Sequence[str]) -> bool:
    """Whether a field is one of some, or below one."""
    return any(name == field or name.startswith(f"{field}.") for field in fields)


def _value(config: StudyConfig, name: str) -> Any:
    """The value of a field by dotted name; None below a section that is left out."""
    value: Any = config
    for key in name.split("."):
        value = getattr(value, key, None)
    return value

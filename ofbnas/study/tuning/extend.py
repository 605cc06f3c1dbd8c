"""Which settings of a study may change once it has begun, and why the others may not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from ofbnas.config import StudyConfig
from ofbnas.config.study_file import load_study
from ofbnas.errors import InputError

WAY_OUT = "give --output a new folder, where sweep.start can begin with the best trials of this one"


class When(Enum):
    """When a field of a study that has begun may change."""

    ANY_TIME = "at any time"
    BETWEEN_TRIALS = "while no trial is interrupted, for trials to come"
    NEVER = "never"


@dataclass(frozen=True)
class ChangeRule:
    """When a field, or all fields below it, may change, and why."""

    field: str
    when: When
    why: str

    def covers(self, path: str) -> bool:
        """Whether this is the rule of a field, given by dotted name."""
        return path == self.field or path.startswith(f"{self.field}.")


_SAMPLER_LEARNS_FROM_ALL = "every sampler learns from all trials, whichever drew them"
_NOT_IN_ROWS = (
    "rows do not record this setting, so trials could not be told apart; sweep it instead"
)

# The first rule that covers a field is its rule.
_RULES = (
    ChangeRule(
        "sweep.n_trials", When.ANY_TIME, "more trials are asked for; those that have begun stay"
    ),
    ChangeRule("sweep.sampler", When.ANY_TIME, _SAMPLER_LEARNS_FROM_ALL),
    ChangeRule("sweep.sampler_options", When.ANY_TIME, _SAMPLER_LEARNS_FROM_ALL),
    ChangeRule(
        "sweep.constraints",
        When.ANY_TIME,
        "rows have every column, so all trials are judged again",
    ),
    ChangeRule(
        "sweep.early_stopping",
        When.ANY_TIME,
        "what trials reported at their rungs is kept for those to come",
    ),
    ChangeRule(
        "objectives",
        When.ANY_TIME,
        "rows have every column, so all trials are reported to Optuna again",
    ),
    ChangeRule("sweep.storage", When.ANY_TIME, "a database may move, with the study in it"),
    ChangeRule("sweep.trackers", When.ANY_TIME, "they only look on"),
    ChangeRule("resources", When.ANY_TIME, "a trial's result does not depend on what Ray gives it"),
    ChangeRule(
        "sweep.params", When.BETWEEN_TRIALS, "ranges may change as long as all trials lie in them"
    ),
    ChangeRule("sweep.start", When.BETWEEN_TRIALS, "points that have not run yet are next"),
    ChangeRule("search.epochs", When.BETWEEN_TRIALS, "the column search_epochs tells trials apart"),
    ChangeRule(
        "finetune.epochs", When.BETWEEN_TRIALS, "the column finetune_epochs tells trials apart"
    ),
    ChangeRule("latency", When.BETWEEN_TRIALS, "the column latency_device tells trials apart"),
    *(
        ChangeRule(f"{section}.evaluate_every", When.ANY_TIME, "looking at accuracy changes none")
        for section in ("pretrain", "search", "finetune")
    ),
    ChangeRule("name", When.NEVER, "rows and Optuna's study are recorded under the name"),
    ChangeRule("seed", When.NEVER, "the parent and each trial's seed follow from it"),
    ChangeRule("model", When.NEVER, "all trials share one parent"),
    ChangeRule("data", When.NEVER, "accuracies on other images do not compare"),
    ChangeRule("pretrain", When.NEVER, "all trials share one parent"),
    ChangeRule("search_space", When.NEVER, "rows do not record the space they were searched in"),
    # These come after the rules of their epochs, which they cover too.
    ChangeRule("search", When.NEVER, _NOT_IN_ROWS),
    ChangeRule("finetune", When.NEVER, _NOT_IN_ROWS),
)


@dataclass(frozen=True)
class Change:
    """A field whose requested value differs from the one in the study's folder."""

    field: str
    was: Any
    now: Any
    rule: ChangeRule

    def __str__(self) -> str:
        """The field, its value in the folder, and the requested one."""
        return f"{self.field} {self.was} (requested: {self.now})"


def changes(config: StudyConfig, folder: Path) -> list[Change]:
    """The fields whose requested values differ from those in a study's folder.

    There are none for a new folder.

    Raises:
        InputError: One of them may never change.
    """
    file = folder / "study.yaml"
    if not file.is_file():
        return []
    before = _leaves(load_study(file).model_dump(mode="json"))
    after = _leaves(config.model_dump(mode="json"))

    changed = []
    for path in before | after:
        was = before.get(path)
        now = after.get(path)
        if was != now:
            changed.append(Change(path, was, now, rule_of(path)))

    for change in changed:
        why = _why_never(change)
        if why is not None:
            raise InputError(f"{folder}: holds a study with {change}, but {why}: {WAY_OUT}")
    return changed


def _why_never(change: Change) -> str | None:
    """Why a change is never possible; None where it may be possible."""
    if change.field == "sweep.sampler" and change.now == "grid":
        return "a grid's points are all of a study, from its start"
    if change.rule.when is When.NEVER:
        return change.rule.why
    return None


def check_changes(
    config: StudyConfig,
    folder: Path,
    changed: list[Change],
    begun: int,
    interrupted: list[int],
) -> None:
    """Check changes against the trials that have begun.

    Args:
        config: The study as it is asked for.
        folder: Its folder.
        changed: The changes, as `changes` gives them.
        begun: Number of trials that have begun.
        interrupted: Numbers of the trials to resume.

    Raises:
        InputError: More trials have begun than are asked for, or a change is for trials to come,
            but one is to be resumed, or none is to come.
    """
    wanted = config.sweep.n_trials
    if wanted < begun:
        raise InputError(
            f"{folder}: sweep.n_trials is {wanted}, but {begun} trials have begun; "
            f"give {begun} or more"
        )
    for change in changed:
        if change.rule.when is not When.BETWEEN_TRIALS:
            continue
        if interrupted:
            numbers = ", ".join(map(str, interrupted))
            raise InputError(
                f"{folder}: holds a study with {change}, but trials were interrupted that began "
                f"with the old value ({numbers}): finish them first, with ofbnas study run "
                f"{folder}/study.yaml --output {folder} --set sweep.n_trials={begun}"
            )
        if wanted == begun:
            raise InputError(
                f"{folder}: holds a study with {change}, which only new trials can follow, but all "
                f"{begun} have begun: give sweep.n_trials above {begun} too, or {WAY_OUT}"
            )


def rule_of(path: str) -> ChangeRule:
    """The rule of a field by dotted name."""
    return next(rule for rule in _RULES if rule.covers(path))


def _leaves(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """All values in a tree of mappings by dotted name."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{path}.{key}" if path else key
        if isinstance(value, Mapping) and value:
            leaves |= _leaves(value, name)
        else:
            leaves[name] = value
    return leaves

"""What of a study may change once it has begun, and why the rest may not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from ofbnas.config import StudyConfig
from ofbnas.errors import InputError
from ofbnas.study_file import load_study

WAY_OUT = "give --output a new folder, where sweep.start can begin with the best trials of this one"


class When(Enum):
    """When a field of a study that has begun may change."""

    ANY_TIME = "at any time"
    BETWEEN_TRIALS = "while no trial is interrupted, for trials to come"
    NEVER = "never"


@dataclass(frozen=True)
class Rule:
    """A field, or all fields below it, and when and why it may change or not."""

    field: str
    when: When
    why: str

    def covers(self, path: str) -> bool:
        """Whether a field by dotted name is this rule's."""
        return path == self.field or path.startswith(f"{self.field}.")


_RULES = (
    Rule("sweep.n_trials", When.ANY_TIME, "more trials are asked for; those that have begun stay"),
    Rule("sweep.sampler", When.ANY_TIME, "every sampler learns from all trials, whichever drew them"),
    Rule("sweep.sampler_options", When.ANY_TIME, "every sampler learns from all trials, whichever drew them"),
    Rule("sweep.constraints", When.ANY_TIME, "rows have every column, so all trials are judged anew"),
    Rule("sweep.early_stopping", When.ANY_TIME, "what trials told at their rungs is kept for those to come"),
    Rule("objectives", When.ANY_TIME, "rows have every column, so all trials are told to Optuna anew"),
    Rule("sweep.storage", When.ANY_TIME, "a database may move, with the study in it"),
    Rule("resources", When.ANY_TIME, "what Ray gives a trial is no part of what it is"),
    Rule("sweep.params", When.BETWEEN_TRIALS, "ranges may change as long as all trials lie in them"),
    Rule("sweep.start", When.BETWEEN_TRIALS, "points that have not run yet are next"),
    Rule("search.epochs", When.BETWEEN_TRIALS, "the column search_epochs tells trials apart"),
    Rule("finetune.epochs", When.BETWEEN_TRIALS, "the column finetune_epochs tells trials apart"),
    Rule("latency", When.BETWEEN_TRIALS, "the column latency_device tells trials apart"),
    Rule("name", When.NEVER, "rows and Optuna's study bear the name"),
    Rule("seed", When.NEVER, "the parent and each trial's seed follow from it"),
    Rule("model", When.NEVER, "all trials share one parent"),
    Rule("data", When.NEVER, "accuracies on other images do not compare"),
    Rule("pretrain", When.NEVER, "all trials share one parent"),
    Rule("search_space", When.NEVER, "rows do not tell the space they were searched in"),
    Rule("search", When.NEVER, "rows do not tell this setting, so trials could not be told apart; sweep it instead"),
    Rule("finetune", When.NEVER, "rows do not tell this setting, so trials could not be told apart; sweep it instead"),
)


@dataclass(frozen=True)
class Change:
    """A field that is not what it was."""

    field: str
    was: Any
    now: Any
    rule: Rule

    def __str__(self) -> str:
        """The field, what it was and what was asked for."""
        return f"{self.field} {self.was}, asked for was {self.now}"


def changes(config: StudyConfig, folder: Path) -> list[Change]:
    """What is asked for otherwise than a study's folder has it; nothing for a new folder.

    Raises:
        InputError: Something among it never changes.
    """
    file = folder / "study.yaml"
    if not file.is_file():
        return []
    was, now = (_leaves(study.model_dump(mode="json")) for study in (load_study(file), config))
    differing = [path for path in was | now if was.get(path) != now.get(path)]
    found = [Change(path, was.get(path), now.get(path), rule_of(path)) for path in differing]
    for change in found:
        to_grid = change.field == "sweep.sampler" and change.now == "grid"
        if change.rule.when is When.NEVER or to_grid:
            why = "a grid's points are all of a study, from its start" if to_grid else change.rule.why
            raise InputError(f"{folder}: holds a study with {change}, but {why}: {WAY_OUT}")
    return found


def check_begun(config: StudyConfig, folder: Path, found: list[Change], begun: int, interrupted: list[int]) -> None:
    """Check changes against the trials that have begun.

    Args:
        config: The study as it is asked for.
        folder: Its folder.
        found: Changes.
        begun: Number of trials that have begun.
        interrupted: Numbers of those that are to be gone on with.

    Raises:
        InputError: Trials would be too many, or a change concerns a trial that is interrupted, or none at all.
    """
    wanted = config.sweep.n_trials
    if wanted < begun:
        raise InputError(f"{folder}: sweep.n_trials is {wanted}, but {begun} trials have begun; give {begun} or more")
    for change in found:
        if change.rule.when is When.BETWEEN_TRIALS and interrupted:
            raise InputError(
                f"{folder}: holds a study with {change}, but trials were interrupted that began with what it was "
                f"({', '.join(map(str, interrupted))}): first finish them, with ofbnas study run {folder}/study.yaml "
                f"--output {folder} --set sweep.n_trials={begun}"
            )
        if change.rule.when is When.BETWEEN_TRIALS and wanted == begun:
            raise InputError(
                f"{folder}: holds a study with {change}, which is for trials to come, but all {begun} have begun: "
                f"give sweep.n_trials above {begun} too, or {WAY_OUT}"
            )


def rule_of(path: str) -> Rule:
    """The rule of a field by dotted name."""
    return next(rule for rule in _RULES if rule.covers(path))


def _leaves(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """All values in a tree of mappings by dotted name."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        here = f"{path}.{key}" if path else key
        leaves |= _leaves(value, here) if isinstance(value, Mapping) and value else {here: value}
    return leaves

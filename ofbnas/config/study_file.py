"""Studies and search spaces as YAML files."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from ofbnas.config import SpaceConfig, StudyConfig
from ofbnas.config.fields import Mistake, first_error, set_value
from ofbnas.config.storage import located
from ofbnas.errors import InputError
from ofbnas.files import documents
from ofbnas.files.shipped import shipped
from ofbnas.files.untrusted import absolute

# Fields that hold a path of a file or a folder, and those that hold a path or a URL.
PATHS = (
    "model.checkpoint",
    "data.path",
    "search.distill.teacher.checkpoint",
    "finetune.distill.teacher.checkpoint",
)
STORAGES = ("sweep.storage", "resources.storage_path")
_FIELD = re.compile(r"[^\s.]+(\.[^\s.]+){0,15}")
_Model = TypeVar("_Model", bound=BaseModel)


def load_study(path: Path | str, settings: Sequence[str] = ()) -> StudyConfig:
    """Read a study from a YAML file.

    Args:
        path: The file, or the name of a study that comes with ofbnas; relative paths inside it
            start from its folder.
        settings: Overrides, such as "search.epochs=5"; relative paths start from the working
            folder.

    Raises:
        InputError: There is no such file, it is not YAML, or something in it is not allowed.
    """
    return _study(_File.read(shipped("studies").get(str(path), Path(path))), settings)


def as_study(given: StudyConfig | Path | str) -> StudyConfig:
    """A study as it is, or that of a file, given by its path or the name of one of ours.

    Raises:
        InputError: There is no such file, or something in it is not allowed.
    """
    return given if isinstance(given, StudyConfig) else load_study(given)


def names_study(source: str) -> bool:
    """Whether a name is that of a study, a file or one that comes with ofbnas, and not of a model."""
    return source.endswith((".yaml", ".yml")) or source in shipped("studies")


def study_of(tree: dict[str, Any], name: str, settings: Sequence[str] = ()) -> StudyConfig:
    """The study of keys and values that are in no file.

    Args:
        tree: The keys and values; relative paths inside start from the working folder.
        name: What they come from, for messages.
        settings: As for `load_study`.

    Raises:
        InputError: Something is not allowed.
    """
    return _study(_File(Path(name), tree, {}, Path()), settings)


def _study(file: _File, settings: Sequence[str]) -> StudyConfig:
    """The study of a file, with overrides."""
    overrides = [_Setting.read(setting) for setting in settings]
    tree = dict(file.tree)
    for setting in overrides:
        set_value(tree, setting.name, setting.value)

    def locate(mistake: Mistake) -> str:
        names = _at_fault(mistake, overrides, file.tree)
        return " and ".join(f"--set {name}" for name in names) or file.locate(mistake)

    return _with_absolute_paths(_validated(StudyConfig, tree, locate), file)


def load_space(path: Path) -> SpaceConfig:
    """Read a search space from a YAML file.

    Raises:
        InputError: There is no such file, it is not YAML, or something in it is not allowed.
    """
    file = _File.read(path)
    return _validated(SpaceConfig, file.tree, file.locate)


def dump_study(study: StudyConfig) -> str:
    """The study as YAML, which `load_study` and `parse_study` read back."""
    tree = study.model_dump(mode="json", exclude_none=True)
    _add_nones_(tree, study.model_dump(mode="json", exclude_defaults=True))
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def _add_nones_(tree: dict[str, Any], set_fields: Mapping[str, Any]) -> None:
    """Add the fields that are None though that is not their default, such as clip_grad."""
    for name, value in set_fields.items():
        if value is None:
            tree[name] = None
        elif isinstance(value, dict):
            _add_nones_(tree[name], value)


def dump_changed(study: StudyConfig) -> str:
    """The settings that are not the defaults, as YAML for people."""
    tree = study.model_dump(mode="json", exclude_defaults=True)
    # What a study is about is said even where it is the default.
    objectives = [goal.model_dump(mode="json") for goal in study.objectives]
    tree = {"name": study.name, "seed": study.seed, **tree, "objectives": objectives}
    return yaml.safe_dump(
        tree, sort_keys=False, allow_unicode=True, default_flow_style=None, width=76
    )


def parse_study(text: str) -> StudyConfig:
    """The study that `dump_study` wrote."""
    tree, _ = documents.parse_yaml(text, "a study")
    return StudyConfig.model_validate(tree)


@dataclass(frozen=True)
class _File:
    """A file of settings.

    Attributes:
        path: Path of the file.
        tree: Its keys and values.
        lines: The line of each key, by the key's path in the tree.
        folder: Where relative paths inside it start.
    """

    path: Path
    tree: dict[str, Any]
    lines: documents.Lines
    folder: Path

    @classmethod
    def read(cls, path: Path) -> _File:
        """Read a file.

        Raises:
            InputError: There is no such file, or it does not hold keys and values.
        """
        try:
            tree, lines = documents.parse_yaml(documents.read_text(path, "a .yaml file"), path)
        except FileNotFoundError:
            raise InputError(
                f"{path}: no such file; expected the path of a .yaml file or, for a study, one of "
                f"{', '.join(shipped('studies'))}"
            ) from None
        if not isinstance(tree, dict):
            given = "nothing" if tree is None else f"a {type(tree).__name__}"
            raise InputError(
                f"{path}: holds {given}, expected keys and values such as 'name: digits'"
            )
        return cls(path, tree, lines, path.parent)

    def locate(self, mistake: Mistake) -> str:
        """The file, and the line of the innermost key around a mistake."""
        for depth in range(len(mistake.path), 0, -1):
            line = self.lines.get(mistake.path[:depth])
            if line is not None:
                return f"{self.path} line {line}"
        return str(self.path)


@dataclass(frozen=True)
class _Setting:
    """A value that the command line gives for a field.

    Attributes:
        name: Dotted name of the field.
        value: The value.
    """

    name: str
    value: Any

    @classmethod
    def read(cls, text: str) -> _Setting:
        """Read a setting such as "search.epochs=5"; a path in it is made absolute.

        Raises:
            InputError: It is not a setting.
        """
        parts = text.split("=", maxsplit=1)
        if len(parts) < 2 or not _FIELD.fullmatch(parts[0]):
            raise InputError(
                f"--set {text[:80]}: expected FIELD=VALUE, for example --set search.epochs=5"
            )
        name, written = parts
        where = f"--set {name[:80]}"  # without the value, which may hold a password
        value, _ = documents.parse_yaml(written, where)
        if isinstance(value, str) and name in PATHS:
            value = str(absolute(value, Path(), where))
        elif isinstance(value, str) and name in STORAGES:
            value = located(value, Path(), where)
        return cls(name, value)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that lead to the field."""
        return tuple(self.name.split("."))


def _at_fault(mistake: Mistake, settings: Sequence[_Setting], file: dict[str, Any]) -> list[str]:
    """The names of the settings that cause a mistake; empty where the file does.

    Args:
        mistake: The mistake.
        settings: Settings of the command line.
        file: The file's keys and values, without the settings.
    """
    # A setting at or above the mistake contains it; the last one replaced those before it.
    around = []
    for setting in settings:
        if mistake.path[: len(setting.keys)] == setting.keys:
            around.append(setting.name)
    if around:
        return around[-1:]

    # Settings inside a section may make it wrong, unless the file alone makes the same mistake.
    depth = len(mistake.path)
    inside = [setting.name for setting in settings if setting.keys[:depth] == mistake.path]
    if inside and _mistake_in(file) != mistake:
        return inside
    return []


def _mistake_in(tree: dict[str, Any]) -> Mistake | None:
    """The first mistake of a study; None where it is valid."""
    try:
        StudyConfig.model_validate(tree)
    except ValidationError as error:
        return first_error(error, tree, StudyConfig)
    return None


def _validated(
    model: type[_Model], tree: dict[str, Any], locate: Callable[[Mistake], str]
) -> _Model:
    """Settings as a validated model.

    Args:
        model: The model.
        tree: Keys and values.
        locate: Says where a mistake was made, for the message.

    Raises:
        InputError: Something is not allowed.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        mistake = first_error(error, tree, model)
        raise InputError(f"{locate(mistake)}: {mistake.message}") from None


def _with_absolute_paths(study: StudyConfig, file: _File) -> StudyConfig:
    """The study of a file with its relative paths made absolute, and its search space read in."""
    tree = study.model_dump()
    folder = file.folder
    for name in PATHS:
        *parents, key = name.split(".")
        section: Any = tree
        for parent in parents:
            section = None if section is None else section[parent]
        if section is not None and section[key] is not None:
            section[key] = absolute(section[key], folder, f"{file.path}: {name}")
    if isinstance(study.search_space, str):
        tree["search_space"] = load_space(_find_space(study.search_space, folder)).model_dump()

    # The storage is taken from the study itself, since a dump leaves out its password.
    storage = study.sweep.storage
    if storage is not None:
        tree["sweep"]["storage"] = located(storage, folder)
    storage_path = study.resources.storage_path
    if storage_path is not None:
        where = "resources.storage_path"
        tree["resources"]["storage_path"] = located(storage_path, folder, where)
    return _validated(StudyConfig, tree, file.locate)


def _find_space(name: str, folder: Path) -> Path:
    """The file of a search space given by name or path."""
    if name.endswith((".yaml", ".yml")):
        return folder / name

    spaces = shipped("search_spaces")
    if name not in spaces:
        raise InputError(
            f"search_space {name[:80]} is unknown, expected {', '.join(spaces)} or the path of a "
            ".yaml file"
        )
    return spaces[name]

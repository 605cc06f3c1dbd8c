"""Studies and search spaces as YAML files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ofbnas.config import SpaceConfig, StudyConfig
from ofbnas.config.storage import located
from ofbnas.errors import InputError
from ofbnas.fields import first_error, set_value

PATHS = (
    "model.checkpoint",
    "data.path",
    "search.distill.teacher.checkpoint",
    "finetune.distill.teacher.checkpoint",
)


def load_study(path: Path, settings: Sequence[str] = ()) -> StudyConfig:
    """Read a study from a YAML file.

    Args:
        path: The file; relative paths inside it are looked up from its folder.
        settings: Overrides, "search.epochs=5"; relative paths are looked up from the working folder.

    Raises:
        InputError: There is no such file, it is no YAML, or something in it is not allowed.
    """
    text = _read(path)
    tree, lines = _parse(text, path)
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"--set {setting}: expected FIELD=VALUE, for example --set search.epochs=5")
        try:
            given = yaml.safe_load(value)
            if isinstance(given, str) and name in PATHS:
                given = str(Path(given).resolve())
            elif isinstance(given, str) and name in ("sweep.storage", "resources.storage_path"):
                given = located(given, Path())
            set_value(tree, name, given)
        except yaml.YAMLError:
            raise InputError(f"--set {setting}: no valid YAML after the equals sign") from None
    try:
        study = StudyConfig.model_validate(tree)
    except ValidationError as error:
        raise InputError(f"{path}{first_error(error, tree, StudyConfig, lines)}") from None
    return _from_folder(study, path.parent)


def load_space(path: Path) -> SpaceConfig:
    """Read a search space from a YAML file.

    Raises:
        InputError: There is no such file, it is no YAML, or something in it is not allowed.
    """
    tree, lines = _parse(_read(path), path)
    try:
        return SpaceConfig.model_validate(tree)
    except ValidationError as error:
        raise InputError(f"{path}{first_error(error, tree, SpaceConfig, lines)}") from None


def dump_study(study: StudyConfig) -> str:
    """The study as YAML that `load_study` reads back."""
    return yaml.safe_dump(study.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True)


def _from_folder(study: StudyConfig, folder: Path) -> StudyConfig:
    """The study with its relative paths made absolute, and its search space read in."""
    tree = study.model_dump()
    for name in PATHS:
        *sections, key = name.split(".")
        place: Any = tree
        for section in sections:
            place = None if place is None else place[section]
        if place is not None and place[key] is not None:
            place[key] = (folder / place[key]).resolve()
    if isinstance(study.search_space, str):
        tree["search_space"] = load_space(_find_space(study.search_space, folder)).model_dump()
    if study.sweep.storage is not None:  # of the study itself, since a dump has no password
        tree["sweep"]["storage"] = located(study.sweep.storage, folder)
    if study.resources.storage_path is not None:
        tree["resources"]["storage_path"] = located(study.resources.storage_path, folder)
    return StudyConfig.model_validate(tree)


def _find_space(name: str, folder: Path) -> Path:
    """The file of a search space given by name or path."""
    if name.endswith((".yaml", ".yml")):
        return folder / name
    package = Path(__file__).parent
    places = [package / "search_spaces", package.parent / "search_spaces"]
    for place in places:
        if (found := place / f"{name}.yaml").is_file():
            return found
    known = sorted({file.stem for place in places for file in place.glob("*.yaml")})
    raise InputError(f"search_space {name} is unknown, expected {', '.join(known)} or the path of a .yaml file")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected the path of a .yaml file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error}); expected a .yaml file") from None


def _parse(text: str, path: Path) -> tuple[dict[str, Any], dict[tuple[str, ...], int]]:
    """A YAML mapping, and the line of each of its keys."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "cannot be parsed"
        raise InputError(f"{path}{where}: no valid YAML ({problem})") from None
    if not isinstance(tree, dict):
        given = "nothing" if tree is None else f"a {type(tree).__name__}"
        raise InputError(f"{path}: holds {given}, expected keys and values such as 'name: digits'")
    lines = dict(_key_lines(node, ()))
    return tree, lines


def _key_lines(node: yaml.Node | None, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, str(key.value))
            yield here, key.start_mark.line + 1
            yield from _key_lines(value, here)

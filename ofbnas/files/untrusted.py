"""Makes input from strangers safe: ids, paths, and text for terminals and cards.

No other module does this.
"""

from __future__ import annotations

import re
import stat
import unicodedata
from pathlib import Path
from typing import TypeGuard

from ofbnas.errors import InputError, one_line

ARCH_ID = re.compile(r"[0-9a-f]{12}")

# Unicode categories that a terminal interprets, or that reorder text: control, format, surrogate,
# private, unassigned.
_UNSAFE = ("Cc", "Cf", "Cs", "Co", "Cn")

MAX_SHOWN = 80  # characters of a path or an id in an error message


def is_arch_id(value: object) -> TypeGuard[str]:
    """Whether a value is an architecture's id: 12 hexadecimal digits."""
    return isinstance(value, str) and ARCH_ID.fullmatch(value) is not None


def check_arch_id(value: object, where: object) -> str:
    """An architecture's id, which may become part of a path.

    Args:
        value: What was given as one.
        where: What it was read from, for the message.

    Raises:
        InputError: It is not 12 hexadecimal digits.
    """
    if not is_arch_id(value):
        given = visible(value)[:MAX_SHOWN]
        raise InputError(f"{where}: {given!r} is not an architecture's id: 12 hexadecimal digits")
    return value


def visible(value: object, *, lines: bool = False) -> str:
    r"""Text for a terminal, with escapes for control and formatting characters, such as \x1b.

    Args:
        value: Anything; its string is used.
        lines: Whether line ends and tabs are kept.
    """
    kept = "\n\t" if lines else ""
    result = []
    for character in str(value):
        is_unsafe = unicodedata.category(character) in _UNSAFE
        if is_unsafe and character not in kept:
            result.append(_escaped(character))
        else:
            result.append(character)
    return "".join(result)


def in_markdown(value: object) -> str:
    """Text in one line, escaped so that Markdown and HTML display it unchanged."""
    line = " ".join(str(value).split())
    text = visible(line)
    escaped = text.replace("&", "&amp;")  # first, as the others insert this character
    escaped = escaped.replace("<", "&lt;")
    escaped = escaped.replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]()#+!|~$-])", r"\\\1", escaped)


def inside(root: Path, path: str, where: object) -> Path:
    """A file or folder below `root` whose path a stranger gave; it need not exist.

    Args:
        root: The folder.
        path: Relative, with slashes.
        where: What it was read from, for the message.

    Raises:
        InputError: It is not such a path, leads out of the folder, or through a link.
    """
    given = visible(path)[:MAX_SHOWN]
    not_within = InputError(f"{where}: {given!r} is not a path within its folder")

    parts = path.split("/")
    has_special = any(part in ("", ".", "..") for part in parts)
    if has_special or "\0" in path or "\\" in path:
        raise not_within
    result = root
    for part in parts:
        result /= part
        try:
            is_link = result.is_symlink()
        except OSError:  # a name that is too long for this file system
            raise not_within from None
        if is_link:
            raise InputError(f"{where}: {given} leads through a link; a shared folder has none")
    return result


def absolute(path: str | Path, folder: Path, where: object) -> Path:
    """A path that a user gave, made absolute, its links resolved.

    Args:
        path: The path; `~` stands for a home folder.
        folder: What a relative path is relative to.
        where: What it was read from, for the message.

    Raises:
        InputError: It cannot be resolved: it has a NUL character, its links form a loop, or there
            is no such home.
    """
    try:
        return (folder / Path(path).expanduser()).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        given = visible(path)[:MAX_SHOWN]
        reason = one_line(error)
        raise InputError(f"{where}: {given} is not a path ({reason})") from None


def check_regular(path: Path) -> None:
    """Refuse a pipe, a device or a folder in place of a file.

    A missing file is left to the code that opens it.

    Raises:
        InputError: It is not a regular file.
    """
    name = visible(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # a NUL character
        raise InputError(f"{name}: cannot be read ({error})") from None
    if not stat.S_ISREG(mode):
        raise InputError(f"{name}: cannot be read, it is not a regular file")


def _escaped(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    if number < 0x10000:
        return f"\\u{number:04x}"
    return f"\\U{number:08x}"

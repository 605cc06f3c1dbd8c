"""Where Optuna keeps a study: a database's URL or a journal's path, shown without its password."""

from __future__ import annotations

import re
from pathlib import Path

from ofbnas.files.untrusted import absolute

# A study may name environment variables with this prefix only: others may hold unrelated secrets.
PREFIX = "OFBNAS_"
PASSWORD = f"{PREFIX}DB_PASSWORD"  # written instead of a password that was given in plain text
JOURNAL = "journal.log"  # the default storage, in the study's folder
EXPECTED = (
    "expected postgresql+psycopg://USER@HOST/NAME, mysql+pymysql://USER@HOST/NAME, "
    "sqlite:///FILE or a path"
)
_SERVER = re.compile(
    r"(?P<kind>postgresql|mysql|mariadb)(?P<driver>\+\w+)?://"
    r"(?:(?P<user>[^:/?@]*)(?P<password>:.*)?@)?"
    r"(?P<host>\[[\da-fA-F:.]+\]|[^:/?@\[\]]*)(?P<port>:\d+)?(?P<rest>[/?][^@]*)?"
)
_SQLITE = re.compile(r"(?P<scheme>sqlite(?:\+\w+)?:///)(?P<file>[^?]+)(?P<options>\?.*)?")
_VARIABLE = re.compile(r"\$\{(\w+)\}")


def is_url(storage: str) -> bool:
    """Whether a storage is a database's URL; otherwise it is the path of a journal."""
    return "://" in storage


def is_sqlite(storage: str | None) -> bool:
    """Whether a storage is an SQLite file."""
    return storage is not None and storage.startswith("sqlite") and is_url(storage)


def checked(storage: str) -> str:
    """The storage, unchanged.

    Raises:
        ValueError: It is neither the URL of a database that Optuna supports nor a path, or it takes
            its password from a variable without the prefix.
    """
    if not storage or "\0" in storage:
        raise ValueError(f"is not a path; {EXPECTED}")
    if is_sqlite(storage):
        _check_sqlite(storage)
    elif is_url(storage):
        _check_server(storage)
    return storage


def shown(storage: str) -> str:
    """The storage without a password: safe to print and write, and valid when read back.

    >>> shown("postgresql+psycopg://me:secret@host/studies")
    'postgresql+psycopg://me:${OFBNAS_DB_PASSWORD}@host/studies'
    >>> shown("runs/journal.log")
    'runs/journal.log'
    """
    if not is_url(storage) or is_sqlite(storage):
        return storage
    server = _SERVER.fullmatch(storage)
    if server is None:  # any part of it may be the password
        return f"{storage.partition('://')[0]}://..."
    password = server["password"]
    if not password or _VARIABLE.fullmatch(password[1:]):
        return storage
    before = storage[: server.start("password")]
    after = storage[server.end("password") :]
    return f"{before}:${{{PASSWORD}}}{after}"


def variable_of(password: str | None) -> str | None:
    """The environment variable that a URL's password refers to; None where it refers to none.

    >>> variable_of("${OFBNAS_DB_PASSWORD}")
    'OFBNAS_DB_PASSWORD'
    """
    reference = _VARIABLE.fullmatch(password or "")
    return reference[1] if reference else None


def located(storage: str, folder: Path, where: object = "sweep.storage") -> str:
    """A storage whose path, or SQLite file, is absolute; the URL of a server is unchanged.

    Args:
        storage: A path or a URL.
        folder: Where a relative path starts.
        where: Where the storage was given, for messages.

    Raises:
        InputError: The path is not valid.
    """
    if not is_url(storage):
        return str(absolute(storage, folder, where))
    sqlite = _SQLITE.fullmatch(storage)
    if sqlite is None or sqlite["file"] == ":memory:":  # `checked` refuses the latter
        return storage
    file = absolute(sqlite["file"], folder, where)
    return f"{sqlite['scheme']}{file}{sqlite['options'] or ''}"


def file_of(storage: str | None, folder: Path) -> Path | None:
    """The file in which Optuna keeps the study of a folder; None where a server keeps it."""
    if storage is None:
        return folder / JOURNAL
    if not is_url(storage):
        return Path(storage)
    sqlite = _SQLITE.fullmatch(storage)
    return Path(sqlite["file"]) if sqlite else None


def _check_sqlite(storage: str) -> None:
    """Check that the URL names a file: a study in memory would be lost with its process."""
    sqlite = _SQLITE.fullmatch(storage)
    if sqlite is None or sqlite["file"] == ":memory:":
        raise ValueError(f"is {storage}, which names no file; expected sqlite:///FILE")


def _check_server(storage: str) -> None:
    """Check that the password can be found in the URL, so that it is never shown."""
    server = _SERVER.fullmatch(storage)
    if server is None:
        raise ValueError(f"is {shown(storage)}, which cannot be read as a URL; {EXPECTED}")
    password = server["password"] or ""
    if "@" in password:
        raise ValueError("has more than one @; write %40 for one in a password")
    options = (server["rest"] or "").partition("?")[2]
    if "pass" in options.lower():
        raise ValueError(f"has a password among its options; write it as USER:${{{PASSWORD}}}@HOST")
    variable = variable_of(password.removeprefix(":"))
    if variable is not None and not variable.startswith(PREFIX):
        raise ValueError(
            f"takes its password from {variable}, expected a variable whose name begins with "
            f"{PREFIX}: export the password as {PASSWORD}, and write ${{{PASSWORD}}}"
        )

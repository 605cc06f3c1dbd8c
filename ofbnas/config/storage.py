"""Where Optuna keeps a study, as text: the URL of a database, or the path of a journal. No password is ever shown."""

from __future__ import annotations

import re
from pathlib import Path

PASSWORD = "OFBNAS_DB_PASSWORD"  # stands in what is written for a password that was given in clear
EXPECTED = "expected postgresql+psycopg://USER@HOST/NAME, mysql+pymysql://USER@HOST/NAME, sqlite:///FILE or a path"
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
    """Whether a storage is a file of SQLite's."""
    return storage is not None and storage.startswith("sqlite") and is_url(storage)


def checked(storage: str) -> str:
    """The storage itself.

    Raises:
        ValueError: It is neither the URL of a database that Optuna takes nor a path.
    """
    if not storage or "\0" in storage:
        raise ValueError(f"is no path; {EXPECTED}")
    if is_sqlite(storage):
        found = _SQLITE.fullmatch(storage)
        if found is None or found["file"] == ":memory:":
            raise ValueError(f"is {storage}, which names no file; expected sqlite:///FILE")
    elif is_url(storage):
        server = _SERVER.fullmatch(storage)
        if server is None:
            raise ValueError(f"is {shown(storage)}, which cannot be read as a URL; {EXPECTED}")
        if "@" in (server["password"] or ""):
            raise ValueError("has more than one @; write %40 for one in a password")
        if "pass" in (server["rest"] or "").partition("?")[2].lower():
            raise ValueError(f"has a password among its options; write it as USER:${{{PASSWORD}}}@HOST")
    return storage


def shown(storage: str) -> str:
    """The storage without a password: as it may be printed and written, and be read back."""
    if not is_url(storage) or is_sqlite(storage):
        return storage
    server = _SERVER.fullmatch(storage)
    if server is None:  # nobody knows which part of it is a password
        return f"{storage.partition('://')[0]}://..."
    password = server["password"]
    if not password or _VARIABLE.fullmatch(password[1:]):
        return storage
    return f"{storage[: server.start('password')]}:${{{PASSWORD}}}{storage[server.end('password') :]}"


def variable_of(password: str | None) -> str | None:
    """The environment variable that a URL names for its password, None where it names none."""
    found = _VARIABLE.fullmatch(password or "")
    return found[1] if found else None


def located(storage: str, folder: Path) -> str:
    """A path, or a storage's file, made absolute: a relative one is looked up from `folder`; other URLs stay."""
    if not is_url(storage):
        return str((folder / Path(storage).expanduser()).resolve())
    found = _SQLITE.fullmatch(storage)
    if found is None or found["file"] == ":memory:":  # which `checked` refuses
        return storage
    return f"{found['scheme']}{(folder / found['file']).resolve()}{found['options'] or ''}"


def file_of(storage: str | None, folder: Path) -> Path | None:
    """The file that Optuna keeps the study of a folder in; None where a server has it."""
    if storage is None:
        return folder / "journal.log"
    if not is_url(storage):
        return Path(storage)
    found = _SQLITE.fullmatch(storage)
    return Path(found["file"]) if found else None

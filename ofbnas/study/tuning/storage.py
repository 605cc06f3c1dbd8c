"""Optuna's storage of a study, opened from its settings, with errors of one line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from sqlalchemy import URL, make_url
from sqlalchemy.exc import NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from ofbnas.config import StudyConfig
from ofbnas.config.storage import (
    EXPECTED,
    JOURNAL,
    PASSWORD,
    file_of,
    is_sqlite,
    is_url,
    shown,
    variable_of,
)
from ofbnas.errors import InputError, causes

CONNECT_TIMEOUT = 10  # seconds
DRIVERS = ("psycopg", "psycopg2", "pymysql", "mysqldb")  # those with an argument connect_timeout

# What replaying a record raises that Optuna did not write.
INVALID_RECORD = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    RecursionError,
)


def storage_of(config: StudyConfig, folder: Path) -> BaseStorage:
    """The Optuna storage of a study.

    Args:
        config: The study.
        folder: Its folder.

    Raises:
        InputError: It cannot be opened.
    """
    given = config.sweep.storage
    label = shown(given or JOURNAL)
    try:
        with readable(config):
            if given is not None and is_url(given):
                return _database(make_url(given), label)
            return JournalStorage(JournalFileBackend(str(file_of(given, folder))))
    except InputError:  # before the others: it is a ValueError, too
        raise
    except NoSuchModuleError:
        raise InputError(
            f"sweep.storage {label}: names a driver that is unknown; {EXPECTED}"
        ) from None
    except ImportError as error:
        cause = _first_line(error.__cause__ or error)
        raise InputError(
            f"sweep.storage {label}: its Python driver is not installed ({cause}); pip install "
            "'psycopg[binary]' for postgresql+psycopg://, pymysql for mysql+pymysql://"
        ) from None
    except (OSError, *INVALID_RECORD) as error:
        cause = _first_line(error)
        raise InputError(
            f"sweep.storage {label}: is not a journal of Optuna's ({cause}); {EXPECTED}"
        ) from None
    except RuntimeError:
        raise InputError(
            f"sweep.storage {label}: its tables are those of another version of Optuna; "
            "run optuna storage upgrade, or give another database"
        ) from None


def mend(config: StudyConfig, folder: Path) -> None:
    """Remove what a full disk left of half-written records at the end of a study's journal.

    Otherwise the next record would be appended to the rest of the last one, in the same line.
    """
    given = config.sweep.storage
    if given is not None and is_url(given):
        return
    file = file_of(given, folder)
    if file is None or not file.is_file() or _is_whole(file):
        return
    lock = JournalFileSymlinkLock(str(file))  # Optuna writes under the same lock
    lock.acquire()
    try:
        # Looked at again under the lock: what was half written may have been whole a moment later.
        if not _is_whole(file):
            with file.open("r+b") as journal:
                journal.truncate(_whole_part(file.read_bytes()))
                os.fsync(journal.fileno())
    finally:
        lock.release()


def check_storage(config: StudyConfig, nodes: int) -> None:
    """Check that a study's storage suits the number of machines its trials run on.

    Raises:
        InputError: It is SQLite, and there are several.
    """
    given = config.sweep.storage
    if given is not None and is_sqlite(given) and nodes > 1:
        raise InputError(
            f"sweep.storage {given}: SQLite is for one machine, and there are {nodes}; "
            "leave sweep.storage out for a journal in the study's folder, or give a server, "
            "postgresql+psycopg://USER@HOST/NAME"
        )


@contextmanager
def readable(config: StudyConfig) -> Iterator[None]:
    """Turn errors of a database into one line, without its password.

    Raises:
        InputError: The database raised an error.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        cause = _database_error(error)
        if cause is None or isinstance(cause, NoSuchModuleError):
            raise
        raise InputError(
            f"sweep.storage {shown(config.sweep.storage or '')}: cannot be used "
            f"({_first_line(cause)}); check that the server runs and has the database, the user "
            f"and the password, which comes from the URL, {PASSWORD} or PGPASSWORD; "
            "the same command resumes"
        ) from None


def _is_whole(journal: Path) -> bool:
    """Whether a journal ends with a whole record."""
    records = journal.read_bytes()
    return _whole_part(records) == len(records)


def _whole_part(records: bytes) -> int:
    """The length in bytes of a journal up to the end of its last record that is a line of JSON."""
    end = records.rfind(b"\n") + 1
    while end:
        start = records.rfind(b"\n", 0, end - 1) + 1
        try:
            json.loads(records[start:end])
        except ValueError:
            end = start  # try the line before
        else:
            break
    return end


def _database(url: URL, label: str) -> RDBStorage:
    """A database, with a new connection for each transaction: trials are hours apart.

    Args:
        url: Its URL.
        label: What error messages call it, without a password.

    Raises:
        InputError: Its password is to come from an environment variable that is not set.
    """
    variable = variable_of(url.password)
    if variable is not None:
        password = os.environ.get(variable)
        elsewhere = variable == PASSWORD and _libpq_knows(url)
        if password is None and not elsewhere:
            raise InputError(
                f"sweep.storage {label}: set the environment variable {variable} to its password"
            )
        url = url.set(password=password)

    arguments = {}
    if url.get_driver_name() in DRIVERS and "connect_timeout" not in url.query:
        arguments["connect_timeout"] = CONNECT_TIMEOUT
    # Optuna passes the URL through str.format, so that braces are to be doubled.
    text = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    return RDBStorage(text, engine_kwargs={"poolclass": NullPool, "connect_args": arguments})


def _libpq_knows(url: URL) -> bool:
    """Whether PostgreSQL's library finds a password by itself."""
    return url.get_backend_name() == "postgresql" and "PGPASSWORD" in os.environ


def _database_error(error: BaseException | None) -> SQLAlchemyError | None:
    """The error of a database's driver among those that Optuna and Tune raised from it."""
    for cause in causes(error):
        if isinstance(cause, SQLAlchemyError):
            return cause
    return None


def _first_line(error: BaseException) -> str:
    """The first line of an error, or of the driver's error that SQLAlchemy wraps."""
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__

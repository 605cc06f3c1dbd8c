"""Optuna's storage of a study, opened from its settings, with its mistakes told in one line."""

from __future__ import annotations

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
from ofbnas.config.storage import EXPECTED, PASSWORD, file_of, is_sqlite, is_url, shown, variable_of
from ofbnas.errors import InputError, causes

CONNECT_TIMEOUT = 10  # seconds
DRIVERS = ("psycopg", "psycopg2", "pymysql", "mysqldb")  # which take it as connect_timeout


def storage_of(config: StudyConfig, folder: Path) -> BaseStorage:
    """The Optuna storage of a study.

    Args:
        config: The study.
        folder: Its folder.

    Raises:
        InputError: It cannot be opened.
    """
    given, told = config.sweep.storage, shown(config.sweep.storage or "journal.log")
    try:
        with readable(config):
            if given is not None and is_url(given):
                return _database(make_url(given), told)
            return JournalStorage(JournalFileBackend(str(file_of(given, folder))))
    except NoSuchModuleError:
        raise InputError(f"sweep.storage {told}: names a driver that is unknown; {EXPECTED}") from None
    except ImportError as error:
        cause = error.__cause__ or error
        raise InputError(
            f"sweep.storage {told}: its Python driver is not installed ({_first_line(cause)}); pip install "
            "'psycopg[binary]' for postgresql+psycopg://, pymysql for mysql+pymysql://"
        ) from None
    except RuntimeError:
        raise InputError(
            f"sweep.storage {told}: its tables are those of another version of Optuna; run optuna storage upgrade, or "
            "give another database"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"sweep.storage {told}: is no journal of Optuna's ({_first_line(error)}); {EXPECTED}"
        ) from None


def mend(config: StudyConfig, folder: Path) -> None:
    """Take away a last record of a study's journal that was written in part, as on a full disk.

    The next one would be added to it.
    """
    given = config.sweep.storage
    file = None if given is not None and is_url(given) else file_of(given, folder)
    if file is None or not file.is_file() or _is_whole(file):
        return
    lock = JournalFileSymlinkLock(str(file))  # what Optuna writes under
    lock.acquire()
    try:
        if not _is_whole(file):  # it was nobody who is still writing
            with file.open("r+b") as journal:
                journal.truncate(file.read_bytes().rfind(b"\n") + 1)
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
            f"sweep.storage {given}: SQLite is for one machine, and there are {nodes}; leave sweep.storage out for a "
            "journal in the study's folder, or give a server, postgresql+psycopg://USER@HOST/NAME"
        )


@contextmanager
def readable(config: StudyConfig) -> Iterator[None]:
    """Tell what goes wrong with a database in one line, without its password.

    Raises:
        InputError: Something did.
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
            f"sweep.storage {shown(config.sweep.storage or '')}: cannot be used ({_first_line(cause)}); check that the "
            f"server runs and has the database, the user and the password, which comes from the URL, {PASSWORD} or "
            "PGPASSWORD; the same command goes on"
        ) from None


def _is_whole(journal: Path) -> bool:
    """Whether a journal ends with the end of a record."""
    records = journal.read_bytes()
    return not records or records.endswith(b"\n")


def _database(url: URL, told: str) -> RDBStorage:
    """A database, each of whose transactions has a connection of its own: trials lie hours apart."""
    if (name := variable_of(url.password)) is not None:
        if (password := os.environ.get(name)) is None and not (name == PASSWORD and _libpq_knows(url)):
            raise InputError(f"sweep.storage {told}: set the environment variable {name} to its password")
        url = url.set(password=password)
    timeout = {"connect_timeout": CONNECT_TIMEOUT} if url.get_driver_name() in DRIVERS else {}
    arguments = {} if "connect_timeout" in url.query else timeout
    text = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")  # Optuna formats it
    return RDBStorage(text, engine_kwargs={"poolclass": NullPool, "connect_args": arguments})


def _libpq_knows(url: URL) -> bool:
    """Whether PostgreSQL's library finds a password by itself."""
    return url.get_backend_name() == "postgresql" and "PGPASSWORD" in os.environ


def _database_error(error: BaseException | None) -> SQLAlchemyError | None:
    """What a database's driver raised, among what Optuna and Tune made of it."""
    return next((cause for cause in causes(error) if isinstance(cause, SQLAlchemyError)), None)


def _first_line(error: BaseException) -> str:
    """An error, a driver's where there is one, in one line."""
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__

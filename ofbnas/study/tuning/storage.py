"""Optuna's storage of a study, opened from its settings, with errors of one line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from ofbnas.config import StudyConfig
from ofbnas.config.storage import (
    EXPECTED,
    JOURNAL,
    PASSWORD,
    file_of,
    is_sqlite,
    is_url,
    shown,
)
from ofbnas.errors import InputError, first_line

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
                from ofbnas.study.tuning.database import opened  # SQLAlchemy takes half a second

                return opened(given, label)
            return JournalStorage(JournalFileBackend(str(file_of(given, folder))))
    except InputError:  # before the others: it is a ValueError, too
        raise
    except (OSError, *INVALID_RECORD) as error:
        cause = first_line(error)
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
        given = config.sweep.storage
        if given is None or not is_url(given):
            raise
        from ofbnas.study.tuning.database import driver_error

        cause = driver_error(error)
        if cause is None:
            raise
        raise InputError(
            f"sweep.storage {shown(given)}: cannot be used "
            f"({first_line(cause)}); check that the server runs and has the database, the user "
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

"""A database as Optuna's storage. SQLAlchemy, which it needs, is imported only with this module."""

from __future__ import annotations

import os

from optuna.storages import RDBStorage
from sqlalchemy import URL, make_url
from sqlalchemy.exc import NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from ofbnas.config.storage import EXPECTED, PASSWORD, variable_of
from ofbnas.errors import InputError, causes, first_line

CONNECT_TIMEOUT = 10  # seconds
DRIVERS = ("psycopg", "psycopg2", "pymysql", "mysqldb")  # those with an argument connect_timeout


def opened(given: str, label: str) -> RDBStorage:
    """A database, with a new connection for each transaction: trials are hours apart.

    Args:
        given: Its URL.
        label: What error messages call it, without a password.

    Raises:
        InputError: Its password is to come from an environment variable that is not set, or its
            driver is unknown or not installed.
        SQLAlchemyError: The database cannot be used.
    """
    url = _with_password(make_url(given), label)
    try:
        arguments = {}
        if url.get_driver_name() in DRIVERS and "connect_timeout" not in url.query:
            arguments["connect_timeout"] = CONNECT_TIMEOUT
        # Optuna passes the URL through str.format, so that braces are to be doubled.
        text = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
        return RDBStorage(text, engine_kwargs={"poolclass": NullPool, "connect_args": arguments})
    except NoSuchModuleError:
        raise InputError(
            f"sweep.storage {label}: names a driver that is unknown; {EXPECTED}"
        ) from None
    except ImportError as error:
        cause = first_line(error.__cause__ or error)
        raise InputError(
            f"sweep.storage {label}: its Python driver is not installed ({cause}); pip install "
            "'psycopg[binary]' for postgresql+psycopg://, pymysql for mysql+pymysql://"
        ) from None


def driver_error(error: BaseException | None) -> SQLAlchemyError | None:
    """The error of a database's driver among those that Optuna and Tune raised from it."""
    for cause in causes(error):
        if isinstance(cause, SQLAlchemyError):
            return cause
    return None


def _with_password(url: URL, label: str) -> URL:
    """A URL whose password is that of the environment variable that it names, if it names one."""
    variable = variable_of(url.password)
    if variable is not None:
        password = os.environ.get(variable)
        elsewhere = variable == PASSWORD and _libpq_knows(url)
        if password is None and not elsewhere:
            raise InputError(
                f"sweep.storage {label}: set the environment variable {variable} to its password"
            )
        url = url.set(password=password)
    return url


def _libpq_knows(url: URL) -> bool:
    """Whether PostgreSQL's library finds a password by itself."""
    return url.get_backend_name() == "postgresql" and "PGPASSWORD" in os.environ

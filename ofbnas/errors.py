"""The errors a user can meet."""

from __future__ import annotations

from collections.abc import Iterator


class InputError(ValueError):
    """What was asked for cannot be done as asked.

    The message is one line: what was given, what was expected, what to do. The command line prints it and exits
    with 2.
    """


class NotFiniteError(ArithmeticError):
    """A loss became NaN or infinite; the run that met it cannot go on."""


class DiskFullError(OSError):
    """There is no room for more files; what has been written stays, and the same command goes on from there."""


class TransferError(OSError):
    """Files did not arrive whole; what has arrived stays, and the same command goes on from there."""


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, what led to it, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__

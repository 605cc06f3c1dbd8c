"""The errors that a user can meet."""

from __future__ import annotations

import errno
from collections.abc import Iterator

FULL = (errno.ENOSPC, errno.EDQUOT)  # no space left; the user's quota is used up
# torch and safetensors raise errors of their own, without an errno.
MESSAGES = ("No space left on device", "Disk quota exceeded")


class InputError(ValueError):
    """A request that cannot be carried out as given.

    The message is one line: what was given, what was expected, what to do. The command line prints
    it and exits with 2.
    """


class NotFiniteError(ArithmeticError):
    """A loss became NaN or infinite; its run cannot continue."""


class DiskFullError(OSError):
    """The disk is too full for more files; those written are kept, and the same command resumes."""


class DiskBudgetError(DiskFullError):
    """The files of a study reached the size that its settings allow."""


class FolderLostError(OSError):
    """A study's folder was removed while the study ran; nothing more can be saved."""


class TransferError(OSError):
    """Files did not arrive complete; those that did are kept, and the same command resumes."""


class DamagedError(InputError):
    """A file that is truncated, or was changed since it was written."""


class ExportError(RuntimeError):
    """A network cannot be exported, or the exported one does not compute what it computes."""


class WorkerLostError(RuntimeError):
    """A process that trains together with others died or stopped answering.

    All of them have to be restarted; they then resume.
    """


def one_line(error: object, limit: int = 300) -> str:
    """An error's message in one line, cut at `limit` characters; its type if it has no message."""
    return " ".join(str(error).split())[:limit] or type(error).__name__


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, the one that led to it, and so on back to the first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def is_full(error: BaseException | None) -> bool:
    """Whether an exception, or one of its causes, says that a disk is full."""
    for cause in causes(error):
        if getattr(cause, "errno", None) in FULL:
            return True
        if any(message in str(cause) for message in MESSAGES):
            return True
    return False


def first_line(error: BaseException) -> str:
    """The first line of an error, or of the driver's error that SQLAlchemy wraps."""
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__

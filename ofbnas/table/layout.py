"""Where the files of a table lie: in a study's folder, in a shared table's, or on their own."""

from __future__ import annotations

import re
from pathlib import Path

from ofbnas.errors import InputError
from ofbnas.files.shipped import shipped
from ofbnas.files.untrusted import check_regular, inside

TABLES = "studies/tables"  # the tables that come with ofbnas

# In a study's folder, each trial has a file of its own in each of these two folders.
FOLDER = "architectures"
HISTORY_FOLDER = "history"
TRIAL_FILE = re.compile(r"trial-\d{5,9}\.parquet")

# A shared table has all rows in one file.
COMPACT = "architectures.parquet"
COMPACT_HISTORY = "history.parquet"

# The latencies that were measured of a table's networks, beside either of them.
LATENCY = "latency.parquet"


def trial_file(trial: int) -> str:
    """Name of the file with a trial's rows."""
    return f"trial-{trial:05d}.parquet"


def trial_files(folder: Path) -> list[Path]:
    """The trials' files in a folder, by number.

    Copies that sync tools make, such as "trial-00000 (1).parquet", are left out.
    """
    candidates = folder.glob("trial-*.parquet")
    return sorted(file for file in candidates if TRIAL_FILE.fullmatch(file.name))


def named(source: Path) -> Path:
    """The path of a table: itself or, where there is nothing, that of a table that comes with ofbnas.

    >>> named(Path("digits")).parts[-3:]
    ('studies', 'tables', 'digits')
    """
    return source if source.exists() else shipped(TABLES, "*").get(str(source), source)


def table_files(source: Path) -> list[Path]:
    """The Parquet files of a table, in the order of their names.

    Raises:
        InputError: There is no such folder or file.
    """
    source = named(source)
    if source.exists() and not source.is_dir():
        return [source]
    if not source.is_dir():
        raise InputError(
            f"{source}: no such file or folder; expected a study's folder, a .parquet file or, for a "
            f"table that comes with ofbnas, one of {', '.join(shipped(TABLES, '*'))}"
        )

    in_study = source / FOLDER
    folder = in_study if in_study.is_dir() else source
    candidates = folder.glob("*.parquet")
    files = sorted(file for file in candidates if _is_table_file(file.name))
    if not files and not has_begun(source):
        raise InputError(
            f"{source}: holds no architecture table; expected a study's folder or .parquet files"
        )
    return files


def _is_table_file(name: str) -> bool:
    """Whether a Parquet file in a table's folder has rows of the table.

    A history and latencies are not rows, and the copy of a trial's file would repeat them.
    """
    if name.startswith("trial-"):
        return TRIAL_FILE.fullmatch(name) is not None
    return name not in (COMPACT_HISTORY, LATENCY)


def has_begun(folder: Path) -> bool:
    """Whether a folder is that of trials of which none may have ended yet."""
    return is_study(folder) or (folder / HISTORY_FOLDER).is_dir()


def is_study(folder: Path) -> bool:
    """Whether a folder is a study's."""
    return (folder / "study.yaml").is_file()


def home(source: Path) -> Path:
    """The folder that the paths of a table's weights are relative to."""
    source = named(source)
    if source.is_dir():
        has_rows = (source / FOLDER).is_dir() or (source / COMPACT).is_file()
        is_home = has_rows or has_begun(source)
        return source if is_home else source.parent

    # A trial's file lies one folder below its study's; any other file beside the weights.
    in_study = source.parent.name == FOLDER and source.name != COMPACT
    return source.parent.parent if in_study else source.parent


def weights_file(source: Path, weights: str) -> Path | None:
    """The file of a row's weights, None where it does not exist.

    Args:
        source: The table.
        weights: The path in a row's `weights`, which may come from a stranger.

    Raises:
        InputError: The path leaves the table's folder, leads through a link, or to something that
            is not a file.
    """
    file = inside(home(source), weights, source)
    check_regular(file)
    return file if file.exists() else None

"""Rows of a table as tests write them: column to value; columns that are left out are None."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ofbnas.table import store
from ofbnas.table.columns import Row


def write_row(study: Path, values: Mapping[str, Any]) -> Path:
    """Add a row of plain values to a study's table."""
    return store.write_row(study, Row.of(values))

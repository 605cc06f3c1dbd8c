"""Queries on the rows of a table: conditions on columns, the row of an id, ambiguous ids."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ofbnas.errors import InputError
from ofbnas.table.schema import SCHEMA

if TYPE_CHECKING:
    import pandas as pd

MAX_LISTED = 6  # ids that an error message names
_CONDITION = re.compile(r"\s*([\w.]+)\s*(<=|>=|!=|==|=|<|>)\s*(.*?)\s*")


def condition(text: str) -> tuple[str, str, Any]:
    """A condition on a column, for `read_table`, from text such as "gmacs<=2" or "model=NAME".

    Returns:
        The column, the comparison, and the value: text for a column of texts, else a number.

    Raises:
        InputError: It is not a condition, or is on a column that cannot be compared.
    """
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise InputError(
            f"condition {text!r}: expected a column, one of <= >= < > = !=, and a value, "
            "such as gmacs<=2"
        )
    name = match[1]
    sign = "==" if match[2] == "=" else match[2]
    value = match[3]

    kind = pa.null()  # of a column that is not in the schema
    if name in SCHEMA.names:
        kind = SCHEMA.field(name).type
    if pa.types.is_string(kind):
        return name, sign, value
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    if not is_number:
        raise InputError(
            f"condition {text!r}: {name} is not a column that can be compared; "
            "see ofbnas table describe"
        )
    try:
        return name, sign, float(value)
    except ValueError:
        raise InputError(f"condition {text!r}: {name} is a number, but {value!r} is not") from None


def find(table: pd.DataFrame, arch_id: str) -> pd.Series[Any]:
    """The best row of an architecture by validation accuracy.

    Args:
        table: The rows.
        arch_id: The architecture's id, or an unambiguous beginning of it.

    Raises:
        InputError: No architecture or several have an id that begins so.
    """
    all_ids = sorted(table["arch_id"].dropna().unique())
    ids = []
    if arch_id:  # every id begins with an empty text
        ids = [known_id for known_id in all_ids if str(known_id).startswith(arch_id)]
    if len(ids) != 1:
        given = f"{len(ids)} architectures begin with it" if ids else "no architecture has it"
        candidates = ids or all_ids
        listed = ", ".join(candidates[:MAX_LISTED]) or "none: the table is empty"
        raise InputError(f"arch id {arch_id!r}: {given}; expected one of {listed}")

    rows = table[table["arch_id"] == ids[0]]
    # Stable, so that of equally accurate rows the first is taken.
    ranked = rows.sort_values(
        "val_top1",
        ascending=False,
        kind="stable",
    )
    best: pd.Series[Any] = ranked.iloc[0]
    return best


def canonical(value: Any) -> Any:
    """A value of a table in a form that can be compared: a nested one as text."""
    if isinstance(value, dict):
        # Lists within it are NumPy arrays, which JSON does not know.
        return json.dumps(value, sort_keys=True, default=lambda array: array.tolist())
    return value


def ambiguous_ids(rows: pd.DataFrame) -> dict[str, int]:
    """Ids that stand for several architectures, and for how many."""
    known = rows[rows["arch_id"].notna()]
    sizes = known["architecture"].map(canonical)
    content = known["model"] + known["model_kwargs"] + sizes
    counts = content.groupby(known["arch_id"]).nunique()
    ambiguous = counts[counts > 1]
    return {str(arch_id): int(count) for arch_id, count in ambiguous.items()}


def to_records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain JSON values: missing ones are None, times are ISO 8601."""
    # Only pandas' own writer turns its missing values and times into JSON, hence the detour through
    # text.
    text = table.to_json(
        orient="records",
        date_format="iso",
        double_precision=15,
    )
    records: list[dict[str, Any]] = json.loads(text)
    return records

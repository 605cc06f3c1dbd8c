"""The parts of which the declaration of a column of the architecture table consists.

Only the standard library is imported, so that settings can import this.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal


class Kind(StrEnum):
    """What a column's values are; `ofbnas.table.schema` has the Arrow type of each."""

    TEXT = "text"
    INT32 = "int32"
    INT64 = "int64"
    REAL = "real"
    TIME = "time"
    ARCHITECTURE = "architecture"


@dataclass(frozen=True)
class Units:
    """How the numbers of a column are displayed.

    Attributes:
        stored: How many basic units one stored unit is, such as 1e9 for GMACs.
        steps: Sizes in basic units and their names, ascending; a number is displayed in the largest
            one that it reaches.
        name: Name of the basic unit, written after the step's.
    """

    stored: float
    steps: tuple[tuple[float, str], ...]
    name: str = ""


PREFIXES = ((1, ""), (1e3, "k"), (1e6, "M"), (1e9, "G"), (1e12, "T"))
PERCENT = Units(1, ((1, "%"),))


@dataclass(frozen=True)
class Comparable:
    """A cost or a quality: a column that fronts, objectives and the report can be about.

    Attributes:
        role: A cost is to be minimized, a quality to be maximized.
        label: Long name, for the axis of a plot, without a unit.
        short: Short name, for the header of a table.
        units: How numbers are displayed.
        at_rungs: Whether a search can project it before it ends.
        section: Section of a study's settings that asks for its measurement; None if it is always
            measured.
        example: Example of that section's value.
    """

    role: Literal["cost", "quality"]
    label: str
    short: str
    units: Units
    at_rungs: bool = False
    section: str | None = None
    example: str = ""


@dataclass(frozen=True)
class Column:
    """A column of the architecture table.

    Attributes:
        name: Its name in the table.
        kind: What its values are.
        meaning: One sentence for people.
        unit: Unit of the stored numbers.
        required: Whether each row has a value.
        low: Smallest valid value, or None.
        low_excluded: Whether `low` itself is invalid.
        high: Largest valid value, or None.
        of_network: Whether only a finished network has it, so that rows of pruned trials must not.
        json: Whether its texts are JSON objects.
        in_report: Whether the report's page receives it.
        in_card: Whether the card of a shared table explains it.
        comparable: What a cost or a quality declares in addition, None for other columns.
    """

    name: str
    kind: Kind
    meaning: str
    unit: str = ""
    required: bool = False
    low: float | None = None
    low_excluded: bool = False
    high: float | None = None
    of_network: bool = False
    json: bool = False
    in_report: bool = False
    in_card: bool = False
    comparable: Comparable | None = None


def column(kind: Kind, meaning: str, unit: str = "", *, required: bool = False, **more: Any) -> Any:
    """A dataclass' field that is a column; the field's name is the column's."""
    declared = {"kind": kind, "meaning": meaning, "unit": unit, "required": required, **more}
    if required:
        return field(metadata=declared)
    return field(default=None, metadata=declared)


# What several declarations share.
NOT_NEGATIVE: dict[str, Any] = {"low": 0}
POSITIVE: dict[str, Any] = {"low": 0, "low_excluded": True}
IN_PERCENT: dict[str, Any] = {"low": 0, "high": 100}
SHARE: dict[str, Any] = {"low": 0, "high": 1}
PAGE: dict[str, Any] = {"in_report": True}
CARD: dict[str, Any] = {"in_card": True}
BOTH: dict[str, Any] = {"in_report": True, "in_card": True}
NETWORK: dict[str, Any] = {"of_network": True}

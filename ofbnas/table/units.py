"""Costs as people read them: scaled so that the number is short, with the name of the unit.

Tables, JSON and settings keep the unit of their column, such as 1e9 multiply-accumulates. Terminal,
cards and pictures use what is here, and the report's page the same rule, in `elements.js`.
"""

from __future__ import annotations

from typing import NamedTuple

from ofbnas.table.columns import comparable

DIGITS = 4  # significant ones
OF_OTHERS = ("parent_", "least_")  # prefixes of columns that hold the same cost of something else
_COMPARABLE = comparable()


class Unit(NamedTuple):
    """A unit to display the numbers of a column in.

    Attributes:
        factor: What stored numbers are multiplied by.
        name: Its name, such as "kMACs"; empty for plain numbers.
    """

    factor: float
    name: str


def is_cost(column: str) -> bool:
    """Whether a column holds a cost, of a network or of its parent."""
    declared = _COMPARABLE.get(_base(column))
    return declared is not None and declared.role == "cost"


def unit_of(column: str, largest: float) -> Unit:
    """The unit in which values of a column up to `largest`, in the stored unit, are short to read.

    >>> unit_of("gmacs", 0.0008)
    Unit(factor=1000000.0, name='kMACs')
    """
    units = _COMPARABLE[_base(column)].units
    size, step = units.steps[0]
    for next_size, next_step in units.steps:
        if abs(largest) * units.stored >= next_size:
            size, step = next_size, next_step
    return Unit(units.stored / size, step + units.name)


def with_unit(column: str, value: float) -> str:
    """A value of a cost with its unit.

    Args:
        column: Name of the column.
        value: The value, in the column's own unit.

    >>> with_unit("gmacs", 1.678e-05), with_unit("parent_gmacs", 4.6), with_unit("params", 22_050_664)
    ('16.78 kMACs', '4.6 GMACs', '22.05 M')
    """
    unit = unit_of(column, value)
    return f"{short(value * unit.factor)} {unit.name}".rstrip()


def short(number: float) -> str:
    """A number with four significant digits, and with commas where it has more before the point.

    >>> short(16.7849), short(0.5), short(123456)
    ('16.78', '0.5', '123,500')
    """
    rounded = float(f"{number:.{DIGITS}g}")
    return f"{rounded:,.10g}"


def _base(column: str) -> str:
    """The column that declares what a column holds of something else."""
    for prefix in OF_OTHERS:
        column = column.removeprefix(prefix)
    return column

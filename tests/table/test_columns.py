"""A column is declared once; everything else follows from the declaration."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import ROOT
from test_table import row

from ofbnas.config.sweep import Objective
from ofbnas.table.columns import COLUMNS, COSTS, QUALITIES, Row, comparable, required_columns
from ofbnas.table.schema import SCHEMA

DECLARED_IN = "ofbnas/table/columns.py"


def sources() -> dict[str, str]:
    files = [*(ROOT / "ofbnas").rglob("*.py"), *(ROOT / "ofbnas").rglob("*.js")]
    return {str(file.relative_to(ROOT)): Path(file).read_text() for file in files}


def test_a_cost_stands_where_it_is_declared_and_where_it_is_measured():
    named = {
        name
        for name, text in sources().items()
        if "latency_ms" in text.replace("parent_latency_ms", "")
    }
    measured_in = {
        "ofbnas/training/latency.py",
        "ofbnas/table/latency.py",
        "ofbnas/study/exporting.py",
    }
    measured_in |= {"ofbnas/config/search.py", "ofbnas/config/fields.py"}  # a budget of that name
    assert named == {DECLARED_IN, *measured_in, "ofbnas/cli/front.py", "ofbnas/cli/bench.py"}


def test_the_schema_has_the_columns_in_their_order():
    assert SCHEMA.names == list(COLUMNS)
    assert [field.name for field in SCHEMA if not field.nullable] == required_columns()
    for field in SCHEMA:
        assert field.metadata == {
            b"meaning": COLUMNS[field.name].meaning.encode(),
            b"unit": COLUMNS[field.name].unit.encode(),
        }


def test_every_cost_and_quality_can_be_an_objective():
    assert list(comparable()) == sorted(comparable(), key=list(COLUMNS).index)
    for name in (*COSTS, *QUALITIES):
        assert Objective(metric=name, direction="minimize").metric == name
    with pytest.raises(ValueError, match="is 'reason', expected top1"):
        Objective(metric="reason", direction="minimize")


def test_a_row_is_its_values_and_its_values_a_row():
    values = row(3)
    made = Row.of(values)
    assert made.swept == {"search.lr": 0.5}
    assert made.values() == dict.fromkeys(COLUMNS) | values
    assert Row.of(made.values()) == made
    with pytest.raises(ValueError, match="no column acuracy"):
        Row.of(values | {"acuracy": 1})
    with pytest.raises(TypeError, match="study"):
        Row.of({"trial": 1})

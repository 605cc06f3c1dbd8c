"""Tables from anyone: whatever is in a file, the answer is a table or one line, and the machine stays up."""

from __future__ import annotations

import json
import os
import resource
import signal
from contextlib import contextmanager, suppress

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from commands import ofbnas
from conftest import KWARGS, NAME, make
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_table import row

from ofbnas import parquet
from ofbnas.axes import axes
from ofbnas.cost import cost_of, sizes_of
from ofbnas.create import create_parent
from ofbnas.errors import InputError
from ofbnas.merge import merge
from ofbnas.schema import SCHEMA
from ofbnas.subnet import Architecture, Subnet, load_subnet, save
from ofbnas.table import nested, read_table, write_row
from ofbnas.validate import validate

SIZES = {"embed": (1, 16), "blocks.0.attn": (4, 4), "blocks.0.mlp": (1, 64), "blocks.1.attn": (4, 4)}
SIZES |= {"blocks.1.mlp": (1, 64)}
EXAMPLES = int(os.environ.get("OFBNAS_FUZZ", "1000"))


def true_row(trial: int = 0, **changes):
    """A row that says what is true of the whole tiny model."""
    model = make()
    found = axes(model, {})
    values = {
        "arch_id": Architecture(NAME, KWARGS, SIZES).id,
        "model": NAME,
        "model_kwargs": json.dumps(KWARGS, sort_keys=True),
        "architecture": nested(SIZES, {axis.name: axis.kind for axis in found}),
        "gmacs": cost_of(model, found).of(sizes_of(found)) / 1e9,
        "params": sum(p.numel() for p in model.parameters()),
    }
    return row(trial, **values | changes)


@pytest.fixture
def study(tmp_path):
    """A study with one row and its weights."""
    folder = tmp_path / "study"
    sha256 = save(Subnet(Architecture(NAME, KWARGS, SIZES), make(), {}), folder / "subnets" / "a")
    write_row(folder, true_row(weights="subnets/a/model.safetensors", weights_sha256=sha256))
    return folder


def test_a_true_table_has_no_problems(study):
    checked = validate(study)
    assert (checked.problems, checked.architectures, checked.weights, checked.absent) == ([], 1, 1, 0)
    assert isinstance(load_subnet(study, read_table(study)["arch_id"][0]), torch.nn.Module)
    done = ofbnas("table", "validate", study)
    assert done.returncode == 0 and "0 problems in 1 rows" in done.stdout


UNTRUE = {
    "an accuracy of 101": ({"top1": 101.0}, "has top1 101.0, expected 0 to 100"),
    "a negative cost": ({"gmacs": -1.0}, "has gmacs -1.0, expected above 0"),
    "an infinite time": ({"seconds": float("inf")}, "has seconds inf, expected 0 or more"),
    "another status": ({"status": "great"}, "has status 'great', expected complete, failed or pruned"),
    "another cost": ({"gmacs": 1.0}, "says gmacs 1, but its sizes cost 0.000"),
    "another number of parameters": ({"params": 5}, "says params 5, but its sizes cost"),
    "another id": ({"arch_id": "0" * 12}, "has the id 000000000000, but its model and sizes make"),
    "another model": ({"model": "vit_tiny"}, "model vit_tiny is unknown to timm"),
    "no JSON": ({"budget": "{"}, "has budget that is no JSON object"),
    "a file to load": (
        {"model_kwargs": json.dumps(KWARGS | {"checkpoint_path": "/etc/passwd"})},
        "a model's arguments have checkpoint_path",
    ),
    "an absurd parent": ({"model_kwargs": json.dumps(KWARGS | {"embed_dim": 10**9})}, "has a number beyond 65,536"),
    "an endless parent": ({"model_kwargs": json.dumps(KWARGS | {"depth": 60_000})}, "asks for more than 1000 blocks"),
    "a parent too large": (
        {"model_kwargs": json.dumps(KWARGS | {"embed_dim": 65_536, "depth": 1000})},
        "parameters; expected at most 20,000,000,000",
    ),
    "a parent that cannot run": ({"model_kwargs": json.dumps(KWARGS | {"patch_size": 225})}, "does not run on images"),
    "deep arguments": ({"model_kwargs": '{"a": ' + "[" * 90_000 + "]" * 9 + "}"}, "expected a JSON object"),
    "a width beyond the parent": (
        {"architecture": {"embed": [10**6], "blocks": [{"heads": 4, "head_size": 4, "mlp": 64}] * 2}},
        "embed at",
    ),
    "a size that is missing": (
        {"architecture": {"embed": [16], "blocks": [{"heads": 4, "head_size": None, "mlp": 64}] * 2}},
        "lacks a size",
    ),
    "too few blocks": ({"architecture": {"embed": [16], "blocks": []}}, "has 1 embeddings and 0 blocks"),
    "weights outside": ({"weights": "../../secret", "weights_sha256": "0"}, "lie outside its folder"),
    "absolute weights": ({"weights": "/etc/passwd", "weights_sha256": "0"}, "lie outside its folder"),
    "weights behind a link": ({"weights": "link/passwd", "weights_sha256": "0"}, "lie outside its folder"),
    "no path": ({"weights": "a\0b", "weights_sha256": "0"}, "is no path of weights"),
    "other weights": ({"weights": "subnets/a/model.safetensors", "weights_sha256": "0"}, "recorded is 0"),
}


@pytest.mark.parametrize("case", UNTRUE)
def test_what_is_not_true_is_told(study, case):
    changes, message = UNTRUE[case]
    (study / "link").symlink_to("/etc")
    write_row(study, true_row(1, **changes))
    problems = [str(problem) for problem in validate(study).problems]
    assert any(message in problem and "trial 1" in problem for problem in problems), problems


def test_an_id_stands_for_one_architecture(study):
    write_row(study, true_row(1, architecture={"embed": [8], "blocks": []}))
    assert any("stands for 2 different ones" in str(problem) for problem in validate(study).problems)
    with pytest.raises(InputError, match="stands for 2 different ones"):
        merge([study], study / "merged")


def test_problems_are_printed_and_make_it_fail(study):
    write_row(study, true_row(1, top1=-3.0))
    done = ofbnas("table", "validate", study, "--json")
    assert done.returncode == 1 and done.stderr == ""
    assert json.loads(done.stdout)["problems"] == [
        {"study": "s", "trial": 1, "what": "has top1 -3.0, expected 0 to 100"}
    ]


@pytest.mark.parametrize("kwargs", [{"pretrained": True}, {"pretrained_cfg": {"file": "x"}}, {"cache_dir": "/"}])
def test_a_description_cannot_name_files(kwargs):
    with pytest.raises(InputError, match="weights are not theirs to name"):
        create_parent(NAME, KWARGS | kwargs)


def bomb(path, **columns):
    """A real table with other columns."""
    table = pa.Table.from_pylist([true_row()], schema=SCHEMA)
    for name, values in columns.items():
        index = table.column_names.index(name) if name in table.column_names else None
        table = table.append_column(name, values) if index is None else table.set_column(index, name, values)
    pq.write_table(table.replace_schema_metadata({"ofbnas_schema": "1"}), path, compression="zstd")
    return path


def test_columns_of_other_types_are_refused(tmp_path):
    for name, values in {"gmacs": ["a lot"], "trial": ["x"], "architecture": [1.5]}.items():
        with pytest.raises(InputError, match=f"column {name} is .*, expected"):
            read_table(bomb(tmp_path / f"{name}.parquet", **{name: pa.array(values)}))


def test_nan_is_refused(tmp_path):
    with pytest.raises(InputError, match="column top1 has NaN; what is missing is null"):
        read_table(bomb(tmp_path / "nan.parquet", top1=pa.array([float("nan")])))


def test_two_columns_of_one_name_are_refused(tmp_path):
    table = pa.Table.from_pylist([true_row()], schema=SCHEMA)
    double = pa.Table.from_arrays([*table.columns, table["top1"]], names=[*table.column_names, "top1"])
    pq.write_table(double.replace_schema_metadata({"ofbnas_schema": "1"}), tmp_path / "double.parquet")
    with pytest.raises(InputError, match="has two columns of one name"):
        read_table(tmp_path / "double.parquet")


@pytest.mark.parametrize(
    ("limit", "what"),
    [("MAX_ROWS", "rows"), ("MAX_COLUMNS", "columns"), ("MAX_VALUES", "values in a column"), ("MAX_BYTES", "bytes")],
)
def test_sizes_are_refused_before_anything_is_unpacked(tmp_path, monkeypatch, limit, what):
    """A column of zeros packs a thousandfold; with limits small enough for a test, it is refused by its footer."""
    file = tmp_path / "bomb.parquet"
    rows = pd.DataFrame([true_row(trial) for trial in range(2)]).drop(columns=["hp.search.lr"])
    table = pa.Table.from_pylist(rows.to_dict("records"), schema=SCHEMA)
    pq.write_table(pa.concat_tables([table] * 500).replace_schema_metadata({"ofbnas_schema": "1"}), file)
    assert len(read_table(file)) == 1000
    monkeypatch.setattr(parquet, limit, 20)
    monkeypatch.setattr(parquet.pq, "read_table", lambda *a, **k: pytest.fail("unpacked"))
    with pytest.raises(InputError, match=rf"says that it has [\d,]+ {what}, expected at most 20"):
        read_table(file)


@contextmanager
def not_for_ever(seconds: int):
    """A hang becomes an error."""

    def stop(number, frame):
        raise AssertionError(f"still at it after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    """The bytes of a good file."""
    return write_row(tmp_path_factory.mktemp("good"), true_row()).read_bytes()


cuts = st.tuples(st.integers(0, 2**20), st.integers(0, 64), st.binary(max_size=64))
odd_values = {
    "top1": st.one_of(st.none(), st.floats()),
    "gmacs": st.one_of(st.none(), st.floats()),
    "params": st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
    "trial": st.integers(-(2**63), 2**63 - 1),
    "arch_id": st.one_of(st.none(), st.text(max_size=20)),
    "model": st.one_of(st.just(NAME), st.text(max_size=20)),
    "model_kwargs": st.one_of(
        st.text(max_size=30), st.dictionaries(st.sampled_from([*KWARGS, "x"]), st.integers()).map(json.dumps)
    ),
    "weights": st.one_of(st.none(), st.text(max_size=40)),
    "architecture": st.one_of(
        st.none(),
        st.fixed_dictionaries(
            {
                "embed": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3),
                "blocks": st.lists(
                    st.fixed_dictionaries(
                        dict.fromkeys(("heads", "head_size", "mlp"), st.one_of(st.none(), st.integers(-5, 2**31 - 1)))
                    ),
                    max_size=4,
                ),
            }
        ),
    ),
}


def judge(file) -> None:
    """A table or one line; anything else fails the test."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with not_for_ever(60), suppress(InputError):
        validate(file)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**21, "more than 2 GiB for a small file"


@pytest.mark.slow
@settings(max_examples=EXAMPLES * 9 // 10, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(cuts, min_size=1, max_size=6))
def test_damaged_files_are_read_or_refused(whole, tmp_path_factory, damages):
    broken = bytearray(whole)
    for place, length, instead in damages:
        start = place % (len(broken) + 1)
        broken[start : start + length] = instead
    file = tmp_path_factory.getbasetemp() / "broken.parquet"
    file.write_bytes(broken)
    judge(file)


@pytest.mark.slow
@settings(max_examples=EXAMPLES // 10, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.fixed_dictionaries({}, optional=odd_values))
def test_odd_values_are_told_or_refused(tmp_path_factory, values):
    file = tmp_path_factory.getbasetemp() / "odd.parquet"
    table = pa.Table.from_pylist([true_row() | values, true_row(1)], schema=SCHEMA)
    pq.write_table(table.replace_schema_metadata({"ofbnas_schema": "1"}), file)
    judge(file)

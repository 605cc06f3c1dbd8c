"""Tables from strangers: the answer is a table or one line, and the machine stays up."""

from __future__ import annotations

import functools
import json
import os

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from commands import ofbnas
from conftest import KWARGS, NAME, make
from limits import limited_memory
from rows import write_row
from safetensors.torch import load_file, save_file
from test_table import row

from ofbnas.errors import InputError
from ofbnas.files.weights import file_sha256
from ofbnas.models.architecture import encode_sizes
from ofbnas.models.axes import axes
from ofbnas.models.cost import cost_of, sizes_of
from ofbnas.models.create import create_parent, on_meta
from ofbnas.models.subnet import Architecture, Subnet, save
from ofbnas.study import validate as validating
from ofbnas.study.networks import load_subnet
from ofbnas.study.validate import validate
from ofbnas.table import parquet
from ofbnas.table.merge import merge
from ofbnas.table.schema import SCHEMA
from ofbnas.table.store import read_table

SIZES = {
    "embed": (1, 16),
    "blocks.0.attn": (4, 4),
    "blocks.0.mlp": (1, 64),
    "blocks.1.attn": (4, 4),
}
SIZES |= {"blocks.1.mlp": (1, 64)}


@functools.cache
def whole() -> dict[str, object]:
    """What is true of the whole tiny model."""
    model = make()
    found = axes(model, {})
    return {
        "arch_id": Architecture(NAME, KWARGS, SIZES).id,
        "model": NAME,
        "model_kwargs": json.dumps(KWARGS, sort_keys=True),
        "architecture": encode_sizes(SIZES, {axis.name: axis.kind for axis in found}),
        "gmacs": cost_of(model, found).of(sizes_of(found)) / 1e9,
        "params": sum(p.numel() for p in model.parameters()),
    }


def true_row(trial: int = 0, **changes):
    """A row that is true for the whole tiny model."""
    return row(trial, **whole() | changes)


@pytest.fixture
def study(tmp_path):
    """A study with one row and its weights."""
    folder = tmp_path / "study"
    sha256 = save(Subnet(Architecture(NAME, KWARGS, SIZES), make(), {}), folder / "subnets" / "a")
    write_row(folder, true_row(weights="subnets/a/model.safetensors", weights_sha256=sha256))
    return folder


def test_a_true_table_has_no_problems(study):
    checked = validate(study)
    assert (checked.problems, checked.architectures, checked.weights, checked.absent) == (
        [],
        1,
        1,
        0,
    )
    assert isinstance(load_subnet(study, read_table(study)["arch_id"][0]), torch.nn.Module)
    done = ofbnas("table", "validate", study)
    assert done.returncode == 0 and "0 problems in 1 row;" in done.stdout


UNTRUE = {
    "an accuracy of 101": ({"top1": 101.0}, "has top1 101.0, expected 0 to 100"),
    "a negative cost": ({"gmacs": -1.0}, "has gmacs -1.0, expected above 0"),
    "an infinite time": ({"seconds": float("inf")}, "has seconds inf, expected 0 or more"),
    "another status": (
        {"status": "great"},
        "has status 'great', expected complete, failed or pruned",
    ),
    "another cost": ({"gmacs": 1.0}, "says gmacs 1, but its sizes cost 0.000"),
    "another number of parameters": ({"params": 5}, "says params 5, but its sizes cost"),
    "another id": ({"arch_id": "0" * 12}, "has the id 000000000000, but its model and sizes make"),
    "another model": ({"model": "vit_tiny"}, "model vit_tiny is unknown to timm"),
    "no JSON": ({"budget": "{"}, "has budget that is not a JSON object"),
    "a file to load": (
        {"model_kwargs": json.dumps(KWARGS | {"checkpoint_path": "/etc/passwd"})},
        "a model's arguments have checkpoint_path",
    ),
    "an absurd parent": (
        {"model_kwargs": json.dumps(KWARGS | {"embed_dim": 10**9})},
        "has a number beyond 65,536",
    ),
    "an endless parent": (
        {"model_kwargs": json.dumps(KWARGS | {"depth": 60_000})},
        "asks for more than 128 blocks",
    ),
    "a parent too large": (
        {"model_kwargs": json.dumps(KWARGS | {"embed_dim": 65_536, "depth": 100})},
        "parameters; expected at most 20,000,000,000",
    ),
    "a parent that cannot run": (
        {"model_kwargs": json.dumps(KWARGS | {"patch_size": 225})},
        "does not run on images",
    ),
    "infinite arguments": ({"model_kwargs": '{"drop_rate": Infinity}'}, "expected a JSON object"),
    "arguments that stand twice": (
        {"model_kwargs": '{"depth": 2, "depth": 3}'},
        "expected a JSON object",
    ),
    "an infinite budget": ({"budget": '{"gmacs": 1e999}'}, "has budget that is not a JSON object"),
    "deep arguments": (
        {"model_kwargs": '{"a": ' + "[" * 90_000 + "]" * 9 + "}"},
        "expected a JSON object",
    ),
    "a width beyond the parent": (
        {
            "architecture": {
                "embed": [10**6],
                "blocks": [{"heads": 4, "head_size": 4, "mlp": 64}] * 2,
            }
        },
        "embed at",
    ),
    "a size that is missing": (
        {
            "architecture": {
                "embed": [16],
                "blocks": [{"heads": 4, "head_size": None, "mlp": 64}] * 2,
            }
        },
        "lacks a size",
    ),
    "too few blocks": (
        {"architecture": {"embed": [16], "blocks": []}},
        "has 1 embeddings and 0 blocks",
    ),
    "weights outside": (
        {"weights": "../../secret", "weights_sha256": "0"},
        "is not a path within its folder",
    ),
    "absolute weights": (
        {"weights": "/etc/passwd", "weights_sha256": "0"},
        "is not a path within its folder",
    ),
    "weights behind a link": (
        {"weights": "link/passwd", "weights_sha256": "0"},
        "leads through a link",
    ),
    "no path": ({"weights": "a\0b", "weights_sha256": "0"}, "is not a path within its folder"),
    "other weights": (
        {"weights": "subnets/a/model.safetensors", "weights_sha256": "0"},
        "the row records 0",
    ),
}


@pytest.mark.parametrize("case", UNTRUE)
def test_false_claims_are_reported(study, case):
    changes, message = UNTRUE[case]
    (study / "link").symlink_to("/etc")
    write_row(study, true_row(1, **changes))
    problems = [str(problem) for problem in validate(study).problems]
    assert any(message in problem and "trial 1" in problem for problem in problems), problems


def replace_weights(study, change):
    """Other weights for the study's first trial, and their hash in its row."""
    file = study / "subnets" / "a" / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    write_row(
        study, true_row(weights="subnets/a/model.safetensors", weights_sha256=file_sha256(file))
    )


UNFIT = {
    "NaN": (
        lambda tensors: [tensor.fill_(torch.nan) for tensor in tensors.values()],
        "its weights have 16 of 16 values of blocks.0.attn.proj.bias that are not finite",
    ),
    "an infinite value": (
        lambda tensors: tensors["head.bias"].__setitem__(3, torch.inf),
        "its weights have 1 of 10 values of head.bias that are not finite",
    ),
    "whole numbers": (
        lambda tensors: tensors.update({"head.bias": tensors["head.bias"].int()}),
        "head.bias holds values of another type, expected floating-point numbers",
    ),
}


@pytest.mark.parametrize("case", UNFIT)
def test_weights_that_cannot_be_a_networks_are_reported(study, case):
    change, message = UNFIT[case]
    replace_weights(study, change)
    checked = validate(study)
    assert checked.weights == 0 and any(message in str(problem) for problem in checked.problems), (
        checked.problems
    )


def test_weights_of_half_precision_are_as_good(study):
    replace_weights(
        study, lambda tensors: tensors.update({name: t.half() for name, t in tensors.items()})
    )
    assert validate(study).problems == [] and validate(study).weights == 1


def test_a_pipe_instead_of_weights_is_reported(study):
    (study / "subnets" / "a" / "model.safetensors").unlink()
    os.mkfifo(study / "subnets" / "a" / "model.safetensors")
    assert ["is not a regular file" in str(problem) for problem in validate(study).problems] == [
        True
    ]
    with pytest.raises(InputError, match="is not a regular file"):
        load_subnet(study, read_table(study)["arch_id"][0])


def test_models_whose_weights_could_not_be_loaded_are_reported(study):
    """Two blocks of BEiT at 2048 pixels have 4 GB of tables, whatever their weights."""
    name, kwargs = (
        "beit_base_patch16_224",
        {"img_size": 2048, "depth": 2, "embed_dim": 8, "num_heads": 1},
    )
    model = on_meta(name, kwargs).model
    found = axes(model, {})
    sizes = {axis.name: axis.size for axis in found}
    file = study / "subnets" / "a" / "model.safetensors"
    save_file(
        {name: torch.zeros(tensor.shape) for name, tensor in model.state_dict().items()}, file
    )
    weights = {"weights": "subnets/a/model.safetensors", "weights_sha256": file_sha256(file)}
    described = {
        "arch_id": Architecture(name, kwargs, sizes).id,
        "model": name,
        "model_kwargs": json.dumps(kwargs),
        "architecture": encode_sizes(sizes, {axis.name: axis.kind for axis in found}),
        "gmacs": cost_of(model, found).of(sizes_of(found)) / 1e9,
        "params": cost_of(model, found, "params").of(sizes_of(found)),
    }
    write_row(study, true_row(**described, **weights))
    with limited_memory(10**9):
        problems = validate(study).problems
    assert [
        "bytes beside its weights; expected at most" in str(problem) for problem in problems
    ] == [True]


def test_each_parent_is_tried_once_even_if_it_cannot_be_created(study, monkeypatch):
    tried = []
    monkeypatch.setattr(
        validating, "on_meta", lambda *given: tried.append(given) or on_meta(*given)
    )
    for trial in range(1, 4):
        changes = {"model_kwargs": json.dumps(KWARGS | {"patch_size": 225}), "gmacs": float(trial)}
        write_row(study, true_row(trial, **changes))
    problems = validate(study).problems
    assert (
        sum("does not run on images" in str(problem) for problem in problems) == 3
        and len(tried) == 2
    )


def test_a_table_of_very_many_parents_is_not_checked_for_hours(study, monkeypatch):
    monkeypatch.setattr(validating, "MAX_PARENTS", 2)
    for trial in range(1, 4):
        write_row(
            study, true_row(trial, model_kwargs=json.dumps(KWARGS | {"drop_rate": trial / 10}))
        )
    problems = [str(problem) for problem in validate(study).problems]
    assert (
        sum(
            "was not checked, as the table has more than 2 different parents" in line
            for line in problems
        )
        == 2
    )


def test_a_block_that_is_null_is_refused(tmp_path):
    blocks = [{"heads": 4, "head_size": 4, "mlp": 64}, None]
    write_row(tmp_path, true_row(architecture={"embed": [16], "blocks": blocks}))
    with pytest.raises(InputError, match="column architecture has a block that is null"):
        read_table(tmp_path)
    assert len(read_table(tmp_path, columns=["gmacs", "top1"])) == 1


def test_an_id_stands_for_one_architecture(study):
    write_row(study, true_row(1, architecture={"embed": [8], "blocks": []}))
    assert any(
        "stands for 2 different ones" in str(problem) for problem in validate(study).problems
    )
    with pytest.raises(InputError, match="stands for 2 different ones"):
        merge([study], study / "merged")


def test_problems_are_printed_and_make_it_fail(study):
    write_row(study, true_row(1, top1=-3.0))
    done = ofbnas("table", "validate", study, "--json")
    assert done.returncode == 1 and done.stderr == ""
    assert json.loads(done.stdout)["problems"] == [
        {"study": "s", "trial": 1, "what": "has top1 -3.0, expected 0 to 100"}
    ]


@pytest.mark.parametrize(
    "kwargs", [{"pretrained": True}, {"pretrained_cfg": {"file": "x"}}, {"cache_dir": "/"}]
)
def test_a_description_cannot_name_files(kwargs):
    with pytest.raises(InputError, match="weights are not theirs to name"):
        create_parent(NAME, KWARGS | kwargs)


def bomb(path, **columns):
    """A real table with some columns replaced."""
    table = pa.Table.from_pylist([true_row()], schema=SCHEMA)
    for name, values in columns.items():
        index = table.column_names.index(name) if name in table.column_names else None
        table = (
            table.append_column(name, values)
            if index is None
            else table.set_column(index, name, values)
        )
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
    double = pa.Table.from_arrays(
        [*table.columns, table["top1"]], names=[*table.column_names, "top1"]
    )
    pq.write_table(
        double.replace_schema_metadata({"ofbnas_schema": "1"}), tmp_path / "double.parquet"
    )
    with pytest.raises(InputError, match="has two columns of one name"):
        read_table(tmp_path / "double.parquet")


@pytest.mark.parametrize(
    ("limit", "what"),
    [
        ("MAX_ROWS", "rows"),
        ("MAX_COLUMNS", "columns"),
        ("MAX_VALUES", "values in a column"),
        ("MAX_BYTES", "bytes"),
    ],
)
def test_sizes_are_refused_before_anything_is_unpacked(tmp_path, monkeypatch, limit, what):
    """A column of zeros compresses a thousandfold; it is refused by its footer, with limits for a test."""
    file = tmp_path / "bomb.parquet"
    rows = pd.DataFrame([true_row(trial) for trial in range(2)]).drop(columns=["hp.search.lr"])
    table = pa.Table.from_pylist(rows.to_dict("records"), schema=SCHEMA)
    pq.write_table(
        pa.concat_tables([table] * 500).replace_schema_metadata({"ofbnas_schema": "1"}), file
    )
    assert len(read_table(file)) == 1000
    monkeypatch.setattr(parquet, limit, 20)
    monkeypatch.setattr(
        parquet.pq.ParquetFile, "iter_batches", lambda *a, **k: pytest.fail("unpacked")
    )
    with pytest.raises(InputError, match=rf"says that it has [\d,]+ {what}, expected at most 20"):
        read_table(file)

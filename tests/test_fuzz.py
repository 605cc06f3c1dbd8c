"""Whatever a file contains, the answer is its content or one line: no traceback, hang or memory use.

OFBNAS_FUZZ is the number of files, which the kinds share.
"""

from __future__ import annotations

import copy
import inspect
import json
import os
import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from conftest import DIGITS, KWARGS, NAME, make
from contracts import FULL_SIZE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from limits import limited_memory
from rows import write_row
from test_strangers import SIZES, true_row

from ofbnas.config.study_file import load_study
from ofbnas.errors import InputError
from ofbnas.models.axes import all_families, axes
from ofbnas.models.cost import cost_of
from ofbnas.models.create import on_meta
from ofbnas.models.state_dict import load_weights_
from ofbnas.models.subnet import Architecture, Subnet, load, save
from ofbnas.study.parent import untrained_parent
from ofbnas.study.plan import check_budgets
from ofbnas.study.tuning.samplers import sampler_of
from ofbnas.study.validate import validate
from ofbnas.table.front import front
from ofbnas.table.schema import SCHEMA
from ofbnas.table.sharing.manifest import Entry, Manifest, parse
from ofbnas.table.store import read_table

pytestmark = pytest.mark.slow

FILES = int(os.environ.get("OFBNAS_FUZZ", "1000"))
SECONDS = 20  # that one file may take
MEMORY = 10**9  # bytes that all files together may take beyond the start
LIMIT = (
    6 * 10**9
)  # bytes of address space beyond the start, so that a mistake does not take the machine down


@pytest.fixture(scope="module", autouse=True)
def little_memory() -> Iterator[None]:
    """Limit the memory, and check at the end how much was used."""
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with limited_memory(LIMIT):
        yield
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - taken) * 1024 < MEMORY


@contextmanager
def judged() -> Iterator[None]:
    """At most one line, and in time: an InputError is a line, anything else fails the test."""

    def stop(number: int, frame: Any) -> None:
        raise AssertionError(f"still at it after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        with suppress(InputError):
            yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fuzz(share: float, **strategies: st.SearchStrategy[Any]) -> Any:
    """A test over a share of all files."""
    examples = settings(
        max_examples=max(1, round(FILES * share)),
        suppress_health_check=list(HealthCheck),
    )

    def decorate(test: Any) -> Any:
        return examples(given(**strategies)(test))

    return decorate


cuts = st.lists(
    st.tuples(st.integers(0, 2**20), st.integers(0, 64), st.binary(max_size=64)),
    min_size=1,
    max_size=6,
)
numbers = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([0, -1, 2**31, 2**70, 10**12, 10**30, 1e-12, 1e-320, 1e308, 65_536, 1_000]),
)
texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            "../../x",
            "/dev/zero",
            "${HOME}",
            "\x1b[2J",
            "[/x]",
            "a\0b",
            "folder",
            "hfds/x",
            "1e5",
            "vit",
        ]
    ),
    st.sampled_from(
        [
            "~no-one/x",
            "x.yaml",
            "rand-x",
            "step",
            "low",
            "choices",
            "preset",
            "grid",
            "seed",
            "2001-99-99",
        ]
    ),
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=8,
)
edits = st.lists(
    st.tuples(st.integers(0, 10_000), st.sampled_from(["set", "drop", "add"]), texts, values),
    max_size=4,
)


def damaged(content: bytes, damages: list[tuple[int, int, bytes]]) -> bytes:
    """Content with pieces replaced by others."""
    broken = bytearray(content)
    for place, length, instead in damages:
        start = place % (len(broken) + 1)
        broken[start : start + length] = instead
    return bytes(broken)


def edited(tree: Any, changes: list[tuple[int, str, str, Any]]) -> Any:
    """A tree of values, some of which are changed, removed or added at any depth."""
    tree = copy.deepcopy(tree)
    for number, how, key, value in changes:
        places = list(_places(tree))
        holder, name = places[number % len(places)]
        if how == "set":
            holder[name] = value
        elif how == "drop":
            del holder[name]
        elif isinstance(holder, dict):
            holder[key] = value
        else:
            holder.append(value)
        if not list(_places(tree)):
            return tree
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """All places in a tree, each as its container and key."""
    items = (
        tree.items()
        if isinstance(tree, dict)
        else enumerate(tree)
        if isinstance(tree, list)
        else ()
    )
    for name, value in list(items):
        yield tree, name
        yield from _places(value)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def row(place: Path) -> bytes:
    return write_row(place / "good", true_row()).read_bytes()


@pytest.fixture(scope="module")
def subnet(place: Path) -> Path:
    save(Subnet(Architecture(NAME, KWARGS, SIZES), make(), {}), place / "subnet")
    return place / "subnet"


def look_at(file: Path) -> None:
    """Do what commands do with a table."""
    with judged():
        validate(file)
    with judged():
        front(read_table(file, columns=["gmacs", "top1", "arch_id"]))


@fuzz(0.3, damages=cuts)
def test_damaged_tables(row, place, damages):
    (place / "damaged.parquet").write_bytes(damaged(row, damages))
    look_at(place / "damaged.parquet")


odd = {
    "top1": st.one_of(st.none(), st.floats()),
    "gmacs": st.one_of(st.none(), st.floats()),
    "params": st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
    "trial": st.integers(-(2**63), 2**63 - 1),
    "arch_id": st.one_of(st.none(), texts, st.from_regex("[0-9a-f]{12}", fullmatch=True)),
    "model": st.one_of(st.just(NAME), texts),
    "model_kwargs": st.one_of(
        st.text(max_size=30),
        st.dictionaries(st.sampled_from([*KWARGS, "x", "window_size", "depths"]), values).map(
            json.dumps
        ),
        edits.map(lambda changes: json.dumps(edited(KWARGS, changes))),
    ),
    "weights": st.one_of(st.none(), texts),
    "architecture": st.one_of(
        st.none(),
        st.fixed_dictionaries(
            {
                "embed": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3),
                "blocks": st.lists(
                    st.one_of(
                        st.none(),
                        st.fixed_dictionaries(
                            dict.fromkeys(
                                ("heads", "head_size", "mlp"),
                                st.one_of(st.none(), st.integers(-5, 2**31 - 1)),
                            )
                        ),
                    ),
                    max_size=4,
                ),
            }
        ),
    ),
}


@fuzz(0.1, changes=st.fixed_dictionaries({}, optional=odd))
def test_odd_tables(place, changes):
    table = pa.Table.from_pylist([true_row() | changes, true_row(1)], schema=SCHEMA)
    pq.write_table(table.replace_schema_metadata({"ofbnas_schema": "1"}), place / "odd.parquet")
    look_at(place / "odd.parquet")


arguments = sorted(
    {
        name
        for family in all_families()
        for kind in family.classes
        for name in inspect.signature(kind).parameters
        if name not in ("args", "kwargs")
    }
)
plausible = st.one_of(
    st.integers(-1, 20),
    st.sampled_from([0.5, True, None, 224, 4096, 65_536, "avg", "layernorm", "gelu"]),
)


@fuzz(
    0.1,
    name=st.sampled_from(sorted(FULL_SIZE.values())),
    kwargs=st.dictionaries(
        st.sampled_from(arguments),
        st.one_of(plausible, plausible, values, st.lists(plausible, max_size=4)),
        max_size=5,
    ),
)
def test_odd_models(name, kwargs):
    with judged():
        meta = on_meta(name, kwargs)
        found = axes(meta.model, {})
        cost_of(meta.model, found)
        cost_of(meta.model, found, "params")
        meta.check_work(2**28)
        meta.hollow()


def plan(file: Path, *settings: str) -> None:
    """Do what a study does before it starts."""
    with judged():
        study = load_study(file, settings)
        sampler_of(study.sweep, study.seed)
        parent = untrained_parent(study)
        check_budgets(study, parent.model, parent.axes)


@fuzz(0.2, changes=edits)
def test_odd_studies(place, changes):
    study = edited(yaml.safe_load(DIGITS.read_text()), changes)
    (place / "odd.yaml").write_text(
        yaml.safe_dump(study, allow_unicode=True), encoding="utf-8", errors="replace"
    )
    plan(place / "odd.yaml")


@fuzz(0.15, damages=cuts)
def test_damaged_studies(place, damages):
    (place / "damaged.yaml").write_bytes(damaged(DIGITS.read_bytes(), damages))
    plan(place / "damaged.yaml")


fields = st.sampled_from(
    ["search.epochs", "search.budget.gmacs", "sweep.params", "sweep", "search_space", "data.path"]
)
tricks = st.sampled_from(["&a [*a]", "!!int x", "2001-99-99", "{a: 1, a: 2}", "[1", "'"])
asked = st.tuples(st.one_of(fields, texts), st.one_of(texts, values.map(json.dumps), tricks))


@fuzz(0.05, asked=st.lists(asked, min_size=1, max_size=3))
def test_odd_settings_of_studies(asked):
    plan(DIGITS, *(f"{field}={value}" for field, value in asked))


@fuzz(0.1, changes=edits, damages=st.one_of(st.just([]), cuts))
def test_odd_descriptions_of_subnets(subnet, place, changes, damages):
    folder = place / "described"
    shutil.copytree(subnet, folder, dirs_exist_ok=True)
    described = json.dumps(
        edited(json.loads((subnet / "config.json").read_text()), changes)
    ).encode()
    (folder / "config.json").write_bytes(damaged(described, damages) if damages else described)
    with judged():
        load(folder)


@fuzz(0.1, damages=cuts)
def test_damaged_weights(subnet, place, damages):
    folder = place / "weighed"
    shutil.copytree(subnet, folder, dirs_exist_ok=True)
    content = (subnet / "model.safetensors").read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    (folder / "model.safetensors").write_bytes(
        damaged(content[:header], damages) + content[header:]
    )
    with judged():
        load(folder)


@fuzz(0.1, damages=cuts, zipped=st.booleans())
def test_damaged_checkpoints(place, damages, zipped):
    model, file = make(), place / "weights.pth"
    torch.save(
        {"state_dict": dict(model.state_dict())}, file, _use_new_zipfile_serialization=zipped
    )
    file.write_bytes(damaged(file.read_bytes(), damages))
    with judged():
        load_weights_(model, file)


MANIFEST = Manifest(
    format=1,
    ofbnas="0.1.0",
    weights="front",
    files=[
        Entry(path=path, size=10, sha256="0" * 64)
        for path in (
            "subnets/0123456789ab/config.json",
            "subnets/0123456789ab/model.safetensors",
            "architectures.parquet",
        )
    ],
)


@fuzz(0.05, changes=edits, damages=st.one_of(st.just([]), cuts))
def test_odd_manifests(changes, damages):
    raw = json.dumps(edited(json.loads(MANIFEST.to_bytes()), changes)).encode()
    with judged():
        parse(damaged(raw, damages) if damages else raw, "somewhere")

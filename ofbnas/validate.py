"""Whether an architecture table says what is true: ranges, ids, sizes, costs, weights."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from ofbnas import table
from ofbnas.axes import Axis, check_sizes
from ofbnas.axes import axes as axes_of
from ofbnas.cost import cost_of
from ofbnas.create import check_parameters, create_parent
from ofbnas.errors import InputError
from ofbnas.shrink import shapes_at
from ofbnas.subnet import Architecture
from ofbnas.weights import check_shapes, file_sha256, weights_file

PERCENT = ("top1", "top5", "val_top1", "top1_before_finetune", "parent_top1")
POSITIVE = ("gmacs", "params", "parent_gmacs", "parent_params", "num_classes", "image_size")
NOT_NEGATIVE = (
    "forced", "latency_ms", "latency_p90_ms", "parent_latency_ms", "search_epochs", "finetune_epochs", "seconds",
    "gpu_hours", "trial",
)  # fmt: skip
FOUND = ("arch_id", "architecture", "gmacs", "params", "top1", "top5", "top1_before_finetune", "weights")
MAX_JSON = 100_000  # characters


@dataclass(frozen=True)
class Problem:
    """Something that is not true.

    Attributes:
        study: The row's study, or None where it is not about one row.
        trial: The row's trial.
        what: What is wrong.
    """

    study: str | None
    trial: int | None
    what: str

    def __str__(self) -> str:
        return self.what if self.study is None else f"{self.study}, trial {self.trial}: {self.what}"


@dataclass
class Checked:
    """What was looked at.

    Attributes:
        rows: Rows.
        architectures: Different architectures, each made without allocating it.
        weights: Files of weights whose hash and shapes are right.
        absent: Rows that name weights that are not here.
        problems: What is not true.
    """

    rows: int = 0
    architectures: int = 0
    weights: int = 0
    absent: int = 0
    problems: list[Problem] = field(default_factory=list)


def validate(source: Path) -> Checked:
    """Check a table from anyone.

    Nothing of it is executed, and no size is allocated before it is checked.

    Raises:
        InputError: It is no table at all.
    """
    rows = table.read_table(source)
    checked = Checked(rows=len(rows))
    checked.problems += [*_ranges(rows), *_duplicates(rows)]
    parents: dict[tuple[str, str], _Parent] = {}
    known = rows[rows["arch_id"].notna()]
    checked.architectures = known["arch_id"].nunique()
    claims = known.assign(architecture=known["architecture"].map(table.canonical))
    told = claims.duplicated(["arch_id", "model", "model_kwargs", "architecture", "gmacs", "params"])
    for _, row in known[~told].iterrows():
        checked.problems += [Problem(row["study"], int(row["trial"]), what) for what in _architecture(row, parents)]
    for _, row in known[known["weights"].notna()].iterrows():
        try:
            found = weights_file(source, row["weights"])
            checked.absent += found is None
            checked.weights += found is not None and _fits(found, row, parents)
        except InputError as error:
            checked.problems.append(Problem(row["study"], int(row["trial"]), str(error)))
    return checked


class _Parent:
    """A parent on the meta device, and what its axes cost."""

    def __init__(self, model: str, kwargs: str) -> None:
        self.kwargs = _json(kwargs)
        with torch.device("meta"):
            made: nn.Module = create_parent(model, self.kwargs)
        check_parameters(made)
        self.axes = axes_of(made, space={})
        self.shapes = {name: tuple(tensor.shape) for name, tensor in made.state_dict().items()}
        self.macs, self.params = cost_of(made, self.axes, "macs"), cost_of(made, self.axes, "params")


def _parent(row: pd.Series[Any], parents: dict[tuple[str, str], _Parent]) -> _Parent:
    key = row["model"], row["model_kwargs"]
    if key not in parents:
        parents[key] = _Parent(*key)
    return parents[key]


def _architecture(row: pd.Series[Any], parents: dict[tuple[str, str], _Parent]) -> Iterator[str]:
    """What is wrong with a row's architecture: it cannot be made, or has another id or other costs."""
    try:
        parent = _parent(row, parents)
        sizes = flat_sizes(row["architecture"], parent.axes)
        check_sizes(parent.axes, sizes)
    except InputError as error:
        yield str(error)
        return
    if (own := Architecture(row["model"], parent.kwargs, sizes).id) != row["arch_id"]:
        yield f"has the id {row['arch_id']}, but its model and sizes make {own}"
    ordered = [sizes[axis.name] for axis in parent.axes]
    for column, cost, unit in (("gmacs", parent.macs, 1e9), ("params", parent.params, 1)):
        actual = cost.of(ordered) / unit
        if pd.notna(row[column]) and not np.isclose(float(row[column]), actual, rtol=1e-9):
            yield f"says {column} {row[column]:g}, but its sizes cost {actual:g}"


def flat_sizes(architecture: Any, axes: list[Axis]) -> dict[str, tuple[int, int]]:
    """Axis name to (groups, channels), from the table's `architecture` column.

    Raises:
        InputError: It does not have the parent's parts.
    """
    if not isinstance(architecture, Mapping):
        raise InputError("has no architecture")
    names = list(dict.fromkeys(axis.name.rpartition(".")[0] for axis in axes if axis.kind != "embed"))
    embeddings, blocks = list(_listed(architecture, "embed")), list(_listed(architecture, "blocks"))
    expected = sum(axis.kind == "embed" for axis in axes)
    if (len(embeddings), len(blocks)) != (expected, len(names)):
        raise InputError(
            f"has {len(embeddings)} embeddings and {len(blocks)} blocks, the parent {expected} and {len(names)}"
        )
    sizes = {}
    for axis in axes:
        if axis.kind == "embed":
            width, heads_of = _whole(embeddings.pop(0)), axis.size[1] if axis.size[0] > 1 else None
            if heads_of is not None and width % heads_of:
                raise InputError(f"has {axis.name} at {width}, but it is made of heads of {heads_of}")
            sizes[axis.name] = (1, width) if heads_of is None else (width // heads_of, heads_of)
            continue
        block = blocks[names.index(axis.name.rpartition(".")[0])]
        keys = ("heads", "head_size") if axis.kind == "attn" else (None, "mlp")
        groups, channels = (1 if key is None else _whole(block.get(key)) for key in keys)
        sizes[axis.name] = groups, channels
    return sizes


def _listed(architecture: Mapping[str, Any], key: str) -> Any:
    value = architecture.get(key)
    return [] if value is None else value


def _whole(value: Any) -> int:
    if value is None or not np.isfinite(value):
        raise InputError("lacks a size that its parent has")
    return int(value)


def _fits(weights: Path, row: pd.Series[Any], parents: dict[tuple[str, str], _Parent]) -> bool:
    """Whether weights are those recorded, and of the architecture.

    Raises:
        InputError: They are not.
    """
    if (actual := file_sha256(weights)) != row["weights_sha256"]:
        raise InputError(f"its weights have SHA-256 {actual}, recorded is {row['weights_sha256']}")
    parent = _parent(row, parents)
    expected = shapes_at(parent.shapes, parent.axes, flat_sizes(row["architecture"], parent.axes))
    check_shapes(weights, expected)
    return True


def _ranges(rows: pd.DataFrame) -> Iterator[Problem]:
    """Values that cannot be."""
    for columns, low, high, told in (
        (PERCENT, 0, 100, "expected 0 to 100"),
        (POSITIVE, np.nextafter(0, 1), np.inf, "expected above 0"),
        (NOT_NEGATIVE, 0, np.inf, "expected 0 or more"),
    ):
        for column in columns:
            numbers = rows[column].astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan)
            odd = ~np.isnan(numbers) & ~((numbers >= low) & (numbers <= high) & np.isfinite(numbers))
            yield from _told(rows, odd, lambda row, c=column, t=told: f"has {c} {row[c]}, {t}")
    odd = ~rows["status"].isin(["complete", "failed", "pruned"]).to_numpy()
    yield from _told(rows, odd, lambda row: f"has status {row['status']!r}, expected complete, failed or pruned")
    pruned = (rows["status"] == "pruned").to_numpy()
    for column in FOUND:
        odd = pruned & rows[column].notna().to_numpy()
        yield from _told(rows, odd, lambda row, c=column: f"was pruned, so it cannot have {c}")
    odd = pruned & ~(rows["search_epochs"].fillna(0) > 0).to_numpy(dtype=bool)
    yield from _told(rows, odd, lambda row: "was pruned, but search_epochs does not say when")
    for column in ("budget", "versions", "model_kwargs"):
        texts = rows[column].dropna()
        bad = rows.index.isin([index for index, text in texts.items() if not _is_json(text)])
        yield from _told(rows, bad, lambda row, c=column: f"has {c} that is no JSON object")


def _duplicates(rows: pd.DataFrame) -> Iterator[Problem]:
    """Trials that are there twice, and ids that stand for several architectures."""
    twice = rows.duplicated([name for name in ("study", "trial", "origin") if name in rows.columns]).to_numpy()
    yield from _told(rows, twice, lambda row: "is there twice")
    for arch_id, count in table.ambiguous_ids(rows).items():
        yield Problem(None, None, f"architecture {arch_id} stands for {count} different ones")


def _told(rows: pd.DataFrame, odd: Any, what: Any) -> Iterator[Problem]:
    for _, row in rows[odd].iterrows():
        yield Problem(str(row["study"]), int(row["trial"]), what(row))


def _is_json(text: str) -> bool:
    try:
        _json(text)
    except InputError:
        return False
    return True


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text) if len(text) <= MAX_JSON else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InputError(f"expected a JSON object of at most {MAX_JSON:,} characters, found {text[:40]!r}")
    return value

"""The card of a shared table: README.md, as the Hugging Face Hub reads it too."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pandas as pd
import yaml

from ofbnas import table as tables
from ofbnas.front import front
from ofbnas.schema import meaning
from ofbnas.sharing.manifest import PICTURE

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
MOST = 20  # rows of the front that are shown

COLUMNS = (
    "arch_id", "study", "trial", "status", "reason", "model", "model_kwargs", "architecture", "gmacs", "params",
    "parent_gmacs", "parent_params", "parent_top1", "top1", "top5", "val_top1", "latency_ms", "parent_latency_ms",
    "latency_device", "dataset", "seed", "versions", "git_commit", "device", "weights", "weights_sha256",
)  # fmt: skip


def card(rows: pd.DataFrame, shared: Collection[str], address: str, *, picture: bool, history: bool) -> str:
    """The text of a shared table's README.md.

    Args:
        rows: The table.
        shared: The folders of weights that are shared, relative to the table's.
        address: Where it will be found.
        picture: Whether a picture of the front lies beside.
        history: Whether the trials' history lies beside.
    """
    on_hub = address.startswith("hf://")
    here = address.rstrip("/") if on_hub else "."
    source = here if on_hub else "SOURCE"
    best = front(rows) if {"gmacs", "top1"} <= set(rows.columns) else rows.iloc[:0]
    studies = ", ".join(map(str, rows["study"].unique()))
    data = f" on {', '.join(map(str, names))}" if len(names := _known(rows, "dataset")) else ""
    parents = ", ".join(f"`{name}`" for name in rows["model"].unique())
    drawn = f"![The Pareto front]({PICTURE})\n\n" if picture else ""
    columns = "\n".join(f"| {name} | {text} | {unit} |" for name in COLUMNS for text, unit in [meaning(name)])
    also = (
        "`history.parquet` has losses, schedules and the options left over time, for each trial.\n" if history else ""
    )
    return f"""---
{yaml.safe_dump(_metadata(rows, studies, history), sort_keys=False, allow_unicode=True).strip()}
---
# Architectures of {studies}

{len(rows)} trials of ofbnas ([the method](https://arxiv.org/abs/2403.15835)){data}, a row for each: smaller networks
made from {parents}, with their sizes, costs, accuracies and settings.

{drawn}{_front(best, shared)}
Weights of {len(shared)} networks are shared. All is plain data (Parquet, JSON, safetensors), and `manifest.json` has
the SHA-256 of every file.

## Use it

```sh
ofbnas table pull {source} FOLDER
ofbnas front show FOLDER
```

```python
import ofbnas

table = ofbnas.read_table("FOLDER")
model = ofbnas.load_subnet("FOLDER", "{_example(rows, best, shared)}")  # a plain timm model
```

Without ofbnas:

```python
import pandas

table = pandas.read_parquet("{here}/{tables.COMPACT}")
```

## Columns

| column | what it is | unit |
|---|---|---|
{columns}
| hp.* | A hyper-parameter that the study swept. | |

{also}"""


def _metadata(rows: pd.DataFrame, studies: str, history: bool) -> dict[str, Any]:
    """The card's YAML."""
    configs: list[dict[str, Any]] = [
        {"config_name": tables.FOLDER, "data_files": tables.COMPACT, "default": True},
    ]
    if history:
        configs.append({"config_name": tables.HISTORY_FOLDER, "data_files": tables.COMPACT_HISTORY})
    return {
        "pretty_name": f"Architectures of {studies}",
        "task_categories": ["image-classification"],
        "tags": ["neural-architecture-search", "vision-transformer", "model-compression", "timm", "ofbnas"],
        "size_categories": [next((name for most, name in SIZES if len(rows) < most), "n>1M")],
        "configs": configs,
    }


def _front(best: pd.DataFrame, shared: Collection[str]) -> str:
    """The front as a table in Markdown."""
    if best.empty:
        return "No row has both gmacs and top1, so there is no front yet.\n"
    lines = ["| arch_id | gmacs | params | top1 | weights |", "|---|---|---|---|---|"]
    for row in tables.to_records(best)[:MOST]:
        folder = str(row.get("weights") or "").rpartition("/")[0]
        link = f"[shared]({folder})" if folder in shared else "not shared"
        params = f"{row['params']:,}" if row.get("params") is not None else ""
        lines.append(f"| {row['arch_id']} | {row['gmacs']:.4g} | {params} | {row['top1']:.2f} | {link} |")
    more = f"\n{len(best) - MOST} more rows are on the front.\n" if len(best) > MOST else ""
    return "The Pareto front, multiply-accumulates against top-1 accuracy:\n\n" + "\n".join(lines) + f"\n{more}"


def _example(rows: pd.DataFrame, best: pd.DataFrame, shared: Collection[str]) -> str:
    """An id whose weights are shared, for the example."""
    for table in (best, rows):
        if "weights" in table:
            for arch_id, weights in zip(table["arch_id"], table["weights"], strict=True):
                if str(weights).rpartition("/")[0] in shared:
                    return str(arch_id)
    return "ARCH_ID"


def _known(rows: pd.DataFrame, column: str) -> list[Any]:
    return list(rows[column].dropna().unique()) if column in rows else []

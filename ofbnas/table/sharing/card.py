"""The card of a shared table: its README.md, which the Hugging Face Hub reads too."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pandas as pd
import yaml

from ofbnas.files.untrusted import in_markdown
from ofbnas.table import layout, query
from ofbnas.table.columns import COLUMNS, comparable
from ofbnas.table.front import default_quality, front
from ofbnas.table.sharing.manifest import CARD_MARK, PICTURE
from ofbnas.table.trust import table_warnings
from ofbnas.table.units import with_unit

# The Hub's size categories: numbers of rows, and the name of the category below each.
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
MOST = 20  # rows of the front, and names in a list, that are shown

# What else may be shared, and what it has.
ALSO = {
    layout.COMPACT_HISTORY: "losses, accuracies and the options left over time, for each trial",
    layout.LATENCY: "latencies that were measured, each with its device, batch size and precision",
}


def card(
    rows: pd.DataFrame,
    shared: Collection[str],
    address: str,
    files: Collection[str],
) -> str:
    """The text of a shared table's README.md.

    Args:
        rows: The table.
        shared: The folders of weights that are shared, relative to the table's.
        address: Where the shared table will be.
        files: Names of the files that are shared.
    """
    # Readers of the Hub find the address; others read the card in a folder that they have.
    here = "."
    source = "SOURCE"
    if address.startswith("hf://"):
        here = source = address.rstrip("/")

    best = front(rows) if {"gmacs", "top1"} <= set(rows.columns) else rows.iloc[:0]
    studies = _names(rows, "study")
    datasets = _names(rows, "dataset")
    data = f" on {datasets}" if datasets else ""
    parents = _names(rows, "model")
    drawn = f"![The Pareto front]({PICTURE})\n\n" if PICTURE in files else ""
    also = "".join(f"`{name}` has {content}.\n" for name, content in ALSO.items() if name in files)
    return f"""---
{yaml.safe_dump(_metadata(rows, studies, files), sort_keys=False, allow_unicode=True).strip()}
---
{CARD_MARK}

# Architectures of {studies}

{len(rows)} trials of ofbnas ([the method](https://arxiv.org/abs/2403.15835)){data}, a row for each: smaller networks
made from {parents}, with their sizes, costs, accuracies and settings.

{drawn}{_front(rows, best, shared)}
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

table = pandas.read_parquet("{here}/{layout.COMPACT}")
```

## Columns

| column | what it is | unit |
|---|---|---|
{_columns()}
| hp.* | A hyper-parameter that the study swept. | |

{also}"""


def _columns() -> str:
    """The table's columns as the rows of a table in Markdown."""
    explained = [column for column in COLUMNS.values() if column.in_card]
    return "\n".join(
        f"| {column.name} | {column.meaning} | {column.unit} |" for column in explained
    )


def _metadata(rows: pd.DataFrame, studies: str, files: Collection[str]) -> dict[str, Any]:
    """The card's metadata, which the Hub reads."""
    size = next((name for most, name in SIZES if len(rows) < most), "n>1M")
    configs: list[dict[str, Any]] = [
        {
            "config_name": layout.FOLDER,
            "data_files": layout.COMPACT,
            "default": True,
        },
    ]
    configs += [
        {"config_name": name.removesuffix(".parquet"), "data_files": name}
        for name in ALSO
        if name in files
    ]
    return {
        "pretty_name": f"Architectures of {studies}",
        "task_categories": ["image-classification"],
        "tags": [
            "neural-architecture-search",
            "vision-transformer",
            "model-compression",
            "timm",
            "ofbnas",
        ],
        "size_categories": [size],
        "configs": configs,
    }


def _front(rows: pd.DataFrame, best: pd.DataFrame, shared: Collection[str]) -> str:
    """The front as a table in Markdown."""
    if best.empty:
        return "No row has both gmacs and an accuracy, so there is no front yet.\n"
    y = default_quality([best])
    accuracies = list(dict.fromkeys([y, "top1"]))  # test accuracy stands beside what was ranked
    header = ["arch_id", "MACs", "parameters", *accuracies, "weights"]
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    for row in query.to_records(best)[:MOST]:
        folder = str(row.get("weights") or "").rpartition("/")[0]
        link = f"[shared]({folder})" if folder in shared else "not shared"
        params = with_unit("params", row["params"]) if row.get("params") is not None else ""
        measured = [f"{row[name]:.2f}" if row[name] is not None else "" for name in accuracies]
        cells = [str(row["arch_id"]), with_unit("gmacs", row["gmacs"]), params, *measured, link]
        lines.append(f"| {' | '.join(cells)} |")

    table = "\n".join(lines)
    more = f"\n{len(best) - MOST} more rows are on the front.\n" if len(best) > MOST else ""
    warnings = "".join(f"\nTake care: {warning}\n" for warning in table_warnings(rows, y))
    title = f"The Pareto front, multiply-accumulates against {comparable()[y].label}"
    return f"{title}:\n\n{table}\n{more}{warnings}"


def _example(rows: pd.DataFrame, best: pd.DataFrame, shared: Collection[str]) -> str:
    """An id whose weights are shared, for the example; one of the front if possible."""
    for table in (best, rows):
        if "weights" not in table:
            continue
        for arch_id, weights in zip(table["arch_id"], table["weights"], strict=True):
            folder = str(weights).rpartition("/")[0]
            if folder in shared:
                return str(arch_id)
    return "ARCH_ID"


def _names(rows: pd.DataFrame, column: str) -> str:
    """The different values of a column, the first of many, escaped for Markdown."""
    known = list(rows[column].dropna().unique()) if column in rows else []
    shown = ", ".join(in_markdown(str(name)[:200]) for name in known[:MOST])
    more = f" and {len(known) - MOST} more" if len(known) > MOST else ""
    return shown + more

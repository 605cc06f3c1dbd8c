"""A trial's subnet in its study's folder: where it is saved, and its model card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ofbnas.files.untrusted import in_markdown
from ofbnas.files.weights import WEIGHTS, file_sha256
from ofbnas.models import subnet as subnets
from ofbnas.models.stock import stock_args
from ofbnas.models.subnet import Subnet
from ofbnas.models.subnet_config import Images
from ofbnas.parallel import shard
from ofbnas.study.clock import Clock
from ofbnas.table import store
from ofbnas.table.columns import Row, comparable
from ofbnas.table.units import is_cost, with_unit
from ofbnas.training.data import Data

# What of a row its network's card needs.
CARD_COLUMNS = ("study", "trial", "dataset", "gmacs", "parent_gmacs", "params", "parent_params")


def save_with_row(
    subnet: Subnet, row: Row, folder: Path, data: Data, clock: Clock, gpus: float | None = None
) -> Row:
    """Save a finished trial's subnet, and then write its row.

    The row is written last: a trial that has one is finished, and is never run again.

    Args:
        subnet: The subnet.
        row: All that was measured.
        folder: The study's.
        data: The images that the subnet was trained on, on its device.
        clock: The trial's.
        gpus: GPUs that the trial holds; by default one for each process on CUDA.

    Returns:
        The row as it was written.
    """
    weights, sha256 = save_subnet(subnet, folder, row, data)
    seconds = clock.seconds()
    if gpus is None:
        gpus = shard().world if data.device.type == "cuda" else 0
    row = replace(
        row,
        weights=weights.relative_to(folder).as_posix(),
        weights_sha256=sha256,
        seconds=seconds,
        gpu_hours=gpus * seconds / 3600,
        finished_at=datetime.now(UTC),
    )
    store.write_row(folder, row)
    return row


def save_subnet(subnet: Subnet, folder: Path, row: Row, data: Data) -> tuple[Path, str]:
    """Save a trial's subnet in a folder of its own.

    Args:
        subnet: The subnet.
        folder: The study's.
        row: What is known of the trial.
        data: The images that it was trained on.

    Returns:
        The file of its weights, and the file's SHA-256.
    """
    # Another process that found the same architecture may create the folder in between; the second
    # attempt then uses the trial's own name. If that exists too, this trial itself saved its subnet
    # before it was interrupted.
    for _ in range(2):
        path = subnet_folder(folder, subnet.architecture.id, row.trial)
        weights = path / WEIGHTS
        card = card_of(subnet, row.values())
        try:
            return weights, subnets.save(subnet, path, card=card, images=images_of(data))
        except FileExistsError:
            continue
    return weights, file_sha256(weights)


def images_of(data: Data) -> Images:
    """How a data set prepares images for a model."""
    if data.resizing is None:
        return Images(data.mean, data.std)
    return Images(data.mean, data.std, *data.resizing)


def subnet_folder(folder: Path, arch_id: str, trial: int) -> Path:
    """The folder in which a trial's subnet is saved.

    It is named after the architecture's id, followed by the trial's number if the id is taken.
    """
    path = folder / "subnets" / arch_id
    if path.exists():
        return path.with_name(f"{arch_id}-trial-{trial}")
    return path


def card_of(subnet: Subnet, values: Mapping[str, Any], address: str = "local-dir:.") -> str:
    """README.md of a saved subnet.

    Args:
        subnet: The subnet.
        values: Its row's values by column; none of `CARD_COLUMNS` is None.
        address: timm's name of the place where it is.
    """
    lines = []
    for axis, (groups, channels) in subnet.architecture.sizes.items():
        lines.append(f"| {axis} | {groups} | {channels} |")
    widths = "\n".join(lines)
    share = values["gmacs"] / values["parent_gmacs"]
    costs = {name: with_unit(name, values[name]) for name in CARD_COLUMNS if is_cost(name)}
    column = "top1" if values.get("top1") is not None else "knn_top1"
    quality = comparable()[column].short
    reached = _percent(values.get(column))
    of_parent = _percent(values.get(f"parent_{column}"))  # other images than its: unknown
    found = f"Found by ofbnas in trial {values['trial']} of study {in_markdown(values['study'])}."
    if values.get("from_arch_id") is not None:
        found = f"Found by ofbnas as {values['from_arch_id']}, and fine-tuned."
    return f"""---
library_name: timm
tags: [image-classification, timm, ofbnas]
---
# {in_markdown(subnet.architecture.model)} compressed to {100 * share:.0f} % of its multiply-accumulates

| | subnet | parent |
|---|---|---|
| {quality} on {in_markdown(values["dataset"])}, % | {reached} | {of_parent} |
| multiply-accumulates | {costs["gmacs"]} | {costs["parent_gmacs"]} |
| parameters | {costs["params"]} | {costs["parent_params"]} |

{found}

{_how_to_load(subnet, address)}

| axis | groups (heads) | channels |
|---|---|---|
{widths}
"""


def _percent(value: float | None) -> str:
    """A percentage for a table's cell, which is empty where it was not measured."""
    return "" if value is None else f"{value:.2f}"


def _how_to_load(subnet: Subnet, address: str) -> str:
    """The card's paragraphs on loading the network."""
    create = f'model = timm.create_model("{address}", pretrained=True)'
    if stock_args(subnet.architecture, subnet.model) is not None:
        return f"""timm makes it from its own arguments:

```python
import timm

{create}
```"""
    return f"""With ofbnas installed, timm makes it like any other model:

```python
import ofbnas.timm  # tells timm how
import timm

{create}
```

Without ofbnas, `load.py` beside the weights makes it with timm alone:
`from load import load; model = load()`."""

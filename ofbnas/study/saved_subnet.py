"""A trial's subnet in its study's folder: where it is saved, and its model card."""

from __future__ import annotations

from pathlib import Path

from ofbnas.files.untrusted import in_markdown
from ofbnas.files.weights import WEIGHTS, file_sha256
from ofbnas.models import subnet as subnets
from ofbnas.models.subnet import Subnet
from ofbnas.table.columns import Row, comparable


def save_subnet(
    subnet: Subnet,
    folder: Path,
    trial: int,
    row: Row,
) -> tuple[Path, str]:
    """Save a trial's subnet in a folder of its own.

    Returns:
        The file of its weights, and the file's SHA-256.
    """
    # Another process that found the same architecture may create the folder in between; the second
    # attempt then uses the trial's own name. If that exists too, this trial itself saved its subnet
    # before it was interrupted.
    for _ in range(2):
        path = subnet_folder(folder, subnet.architecture.id, trial)
        weights = path / WEIGHTS
        card = _card(subnet, row, path.name)
        try:
            return weights, subnets.save(subnet, path, card=card)
        except FileExistsError:
            continue
    return weights, file_sha256(weights)


def subnet_folder(folder: Path, arch_id: str, trial: int) -> Path:
    """The folder in which a trial's subnet is saved.

    It is named after the architecture's id, followed by the trial's number if the id is taken.
    """
    path = folder / "subnets" / arch_id
    if path.exists():
        return path.with_name(f"{arch_id}-trial-{trial}")
    return path


def _card(subnet: Subnet, row: Row, name: str) -> str:
    """README.md of a saved subnet."""
    lines = []
    for axis, (groups, channels) in subnet.architecture.sizes.items():
        lines.append(f"| {axis} | {groups} | {channels} |")
    widths = "\n".join(lines)
    values = row.values()
    share = values["gmacs"] / values["parent_gmacs"]
    column = "top1" if row.top1 is not None else "knn_top1"
    quality = comparable()[column].short
    parent_quality = values[f"parent_{column}"]
    # Unknown where the network learned other images than its parent.
    of_parent = "-" if parent_quality is None else f"{parent_quality:.2f}"
    found = f"Found by ofbnas in trial {row.trial} of study {in_markdown(row.study)}."
    if row.from_arch_id is not None:
        found = f"Found by ofbnas as {row.from_arch_id}, and fine-tuned."
    return f"""---
library_name: timm
tags: [image-classification, timm, ofbnas]
---
# {in_markdown(subnet.architecture.model)} compressed to {share:.0%} of its multiply-accumulates

| | subnet | parent |
|---|---|---|
| {quality} on {in_markdown(row.dataset)}, % | {values[column]:.2f} | {of_parent} |
| GMACs | {values["gmacs"]:.6g} | {values["parent_gmacs"]:.6g} |
| parameters | {values["params"]:,} | {values["parent_params"]:,} |

{found} It is a plain timm model:

```python
import ofbnas

model = ofbnas.load_subnet(".", "{subnet.architecture.id}")  # in this folder; {name} in the study
```

| axis | groups (heads) | channels |
|---|---|---|
{widths}
"""

"""One trial from parent to row: search, fine-tune, evaluate, save."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ofbnas import subnet as subnets
from ofbnas import table
from ofbnas.axes import input_size
from ofbnas.config import StudyConfig
from ofbnas.cost import cost_of, sizes_of
from ofbnas.data import Data
from ofbnas.finetune import finetune
from ofbnas.latency import latency
from ofbnas.parallel import shard
from ofbnas.parent import teacher_of, untrained_parent
from ofbnas.schema import SWEPT
from ofbnas.search import search
from ofbnas.searcher import OnRung
from ofbnas.subnet import Subnet
from ofbnas.training import evaluate, load_checkpoint, save_checkpoint
from ofbnas.weights import file_sha256

Report = Callable[[str, int, int], None]  # phase, epoch from 1, epochs


def run_trial(
    config: StudyConfig,
    params: Mapping[str, Any],
    trial: int,
    folder: Path,
    data: Data,
    parent_state: Mapping[str, Tensor],
    report: Report,
    gpus: float | None = None,
    on_rung: OnRung | None = None,
) -> dict[str, Any]:
    """One search and fine-tuning with the swept values; its subnet, history and row are written.

    Args:
        config: The study.
        params: Swept fields by dotted name, with this trial's values.
        trial: Its number; the seed is the study's plus this.
        folder: The study's.
        data: On the device the trial runs on.
        parent_state: The trained parent's tensors.
        report: Called after each epoch with the phase, the epoch from 1, and the phase's epochs.
        gpus: GPUs that the trial holds; by default one for each process on CUDA.
        on_rung: Called at the study's rungs with the epoch, what `search` then knows, and the trial's "seconds".

    Returns:
        The row; with several processes, the first one's has the weights too.

    Raises:
        InputError: The values are out of reach for the model.
        NotFiniteError: A loss became NaN or infinite.
    """
    checkpoints = checkpoint_folder(folder, trial)
    clock = _Clock(checkpoints / "seconds.pt")
    values = config.with_values(params)
    device, seed = data.device, config.seed + trial

    def after_epoch(phase: str, epoch: int, epochs: int) -> None:
        clock.save()
        report(phase, epoch, epochs)

    def at_rung(epoch: int, told: dict[str, float]) -> None:
        if on_rung is not None:
            on_rung(epoch, told | {"seconds": clock.seconds()})

    parent = untrained_parent(values)
    parent.model.load_state_dict(parent_state)
    model = parent.model.to(device).eval()
    found = search(
        model,
        data,
        values.search,
        name=values.model.name,
        kwargs=parent.kwargs,
        axes=parent.axes,
        seed=seed,
        teacher=teacher_of(values.search.distill, model, data),
        on_epoch=lambda epoch, _: after_epoch("search", epoch, values.search.epochs),
        checkpoint=checkpoints / "search.pt",
        rungs=config.rungs(values.search.epochs),
        on_rung=at_rung,
    )
    before = evaluate(found.subnet.model, data.test)
    subnet, tuning = found.subnet, values.finetune
    if tuning is not None:
        subnet = finetune(
            subnet,
            data,
            tuning,
            teacher=teacher_of(tuning.distill, model, data),
            seed=seed,
            on_epoch=lambda epoch, _: after_epoch("finetune", epoch, tuning.epochs),
            checkpoint=checkpoints / "finetune.pt",
        )
    test, val = evaluate(subnet.model, data.test), evaluate(subnet.model, data.val)
    costs = {metric: cost_of(model, parent.axes, metric).of(sizes_of(parent.axes)) for metric in ("macs", "params")}
    row = base_row(config, params, trial) | {
        "arch_id": subnet.architecture.id,
        "status": "complete",
        "model_kwargs": json.dumps(dict(parent.kwargs), sort_keys=True),
        "image_size": input_size(model)[1],
        "architecture": table.nested(subnet.architecture.sizes, {axis.name: axis.kind for axis in parent.axes}),
        "gmacs": found.macs / 1e9,
        "params": found.params,
        "parent_gmacs": costs["macs"] / 1e9,
        "parent_params": costs["params"],
        "budget": json.dumps(values.search.budget.model_dump(exclude_none=True)),
        "budget_note": found.note,
        "forced": found.forced,
        "top1": test.top1,
        "top5": test.top5,
        "val_top1": val.top1,
        "top1_before_finetune": before.top1,
        "parent_top1": evaluate(model, data.test).top1,
        "search_epochs": values.search.epochs,
        "finetune_epochs": 0 if tuning is None else tuning.epochs,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
    }
    if shard().rank != 0:
        return row
    if values.latency is not None:
        row |= latency(subnet.model, model, values.latency)
    saved, sha256 = _save_subnet(subnet, folder, trial, row)
    row |= {"weights": f"{saved.relative_to(folder).as_posix()}/model.safetensors", "weights_sha256": sha256}
    table.write_history(folder, trial, found.history)
    held = gpus if gpus is not None else shard().world if device.type == "cuda" else 0
    seconds = clock.seconds()
    row |= {"seconds": seconds, "gpu_hours": held * seconds / 3600, "finished_at": datetime.now(UTC)}
    table.write_row(folder, row)
    drop_checkpoints(folder, trial)
    return row


def write_failure(config: StudyConfig, params: Mapping[str, Any], trial: int, folder: Path, reason: str) -> None:
    """Write the row of a trial that failed."""
    row = base_row(config, params, trial)
    table.write_row(folder, row | {"status": "failed", "reason": reason, "finished_at": datetime.now(UTC)})
    drop_checkpoints(folder, trial)


def write_pruned(
    config: StudyConfig, params: Mapping[str, Any], trial: int, folder: Path, reason: str, known: Mapping[str, Any]
) -> None:
    """Write the row of a trial that was stopped early, with the columns that are known by then."""
    budget = config.with_values(params).search.budget.model_dump(exclude_none=True)
    row = base_row(config, params, trial) | {"budget": json.dumps(budget), "finetune_epochs": 0, **known}
    table.write_row(folder, row | {"status": "pruned", "reason": reason, "finished_at": datetime.now(UTC)})
    drop_checkpoints(folder, trial)


class _Clock:
    """Time of a trial, those processes of it included that were lost, up to the last `save` of each."""

    settings = "the time of a trial"

    def __init__(self, file: Path) -> None:
        self.file, self.started = file, time.monotonic()
        self.before: float = (load_checkpoint(file, self.settings) or {"seconds": 0.0})["seconds"]

    def seconds(self) -> float:
        """Time until now."""
        return self.before + time.monotonic() - self.started

    def save(self) -> None:
        """Keep it for the process that goes on with the trial."""
        save_checkpoint(self.file, {"seconds": self.seconds()}, self.settings)


def checkpoint_folder(folder: Path, trial: int) -> Path:
    """Where a running trial keeps its checkpoints."""
    return folder / "checkpoints" / f"trial-{trial:05d}"


def drop_checkpoints(folder: Path, trial: int) -> None:
    """Remove the checkpoints of a trial that is over."""
    shutil.rmtree(checkpoint_folder(folder, trial), ignore_errors=True)
    with suppress(OSError):  # others still have theirs
        (folder / "checkpoints").rmdir()


def base_row(config: StudyConfig, params: Mapping[str, Any], trial: int) -> dict[str, Any]:
    """The columns that are known before a trial runs."""
    return {
        "study": config.name,
        "trial": trial,
        "model": config.model.name,
        "model_kwargs": json.dumps(config.model.kwargs, sort_keys=True),
        "num_classes": config.data.num_classes,
        "dataset": config.data.name,
        "seed": config.seed + trial,
        "versions": json.dumps(versions()),
        "git_commit": git_commit(),
        **{f"{SWEPT}{name}": value for name, value in params.items()},
    }


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    names = ("ofbnas", "torch", "timm", "optuna", "ray")
    found = {"python": platform.python_version()}
    for name in names:
        with suppress(PackageNotFoundError):  # a search alone needs neither optuna nor ray
            found[name] = version(name)
    return found


def git_commit() -> str | None:
    """The commit of the checkout that ofbnas runs from; None where it is installed."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    asked = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip() or None


def _save_subnet(subnet: Subnet, folder: Path, trial: int, row: Mapping[str, Any]) -> tuple[Path, str]:
    """Save under the architecture's id; a second trial that found the same one gets a folder of its own."""
    arch_id = subnet.architecture.id
    for _ in range(2):  # another process may take the first one's place
        place = subnet_folder(folder, arch_id, trial)
        try:
            return place, subnets.save(subnet, place, card=_card(subnet, row, place.name))
        except FileExistsError:
            continue
    return place, file_sha256(place / "model.safetensors")


def subnet_folder(folder: Path, arch_id: str, trial: int) -> Path:
    """Where a trial's subnet goes: under the architecture's id, or a name of the trial's own if that is taken."""
    place = folder / "subnets" / arch_id
    return place.with_name(f"{arch_id}-trial-{trial}") if place.exists() else place


def _card(subnet: Subnet, row: Mapping[str, Any], name: str) -> str:
    """README.md of a saved subnet."""
    widths = "\n".join(
        f"| {axis} | {groups} | {channels} |" for axis, (groups, channels) in subnet.architecture.sizes.items()
    )
    return f"""---
library_name: timm
tags: [image-classification, timm, ofbnas]
---
# {subnet.architecture.model} compressed to {row["gmacs"] / row["parent_gmacs"]:.0%} of its multiply-accumulates

| | subnet | parent |
|---|---|---|
| top-1 on {row["dataset"]}, % | {row["top1"]:.2f} | {row["parent_top1"]:.2f} |
| GMACs | {row["gmacs"]:.6g} | {row["parent_gmacs"]:.6g} |
| parameters | {row["params"]:,} | {row["parent_params"]:,} |

Found by ofbnas in trial {row["trial"]} of study {row["study"]}. It is a plain timm model:

```python
import ofbnas

model = ofbnas.load_subnet(".", "{subnet.architecture.id}")  # in this folder; {name} in the study
```

| axis | groups (heads) | channels |
|---|---|---|
{widths}
"""

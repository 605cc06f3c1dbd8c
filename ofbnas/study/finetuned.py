"""Fine-tuning of a table's network: a row of its own, which says where it came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ofbnas import parallel
from ofbnas.config import DataConfig, FinetuneConfig, StudyConfig
from ofbnas.config.model import label_of
from ofbnas.errors import InputError
from ofbnas.files import durable
from ofbnas.models.axes import axes as axes_of
from ofbnas.models.axes import input_size
from ofbnas.models.classifier import with_classifier
from ofbnas.models.cost import cost_of, sizes_of
from ofbnas.models.create import create_parent, on_meta
from ofbnas.models.state_dict import load_weights_
from ofbnas.models.subnet import Subnet
from ofbnas.parallel import shard
from ofbnas.study.clock import Clock
from ofbnas.study.images import record_of
from ofbnas.study.networks import Network
from ofbnas.study.parent import parent_kwargs, teacher_of, trained_parent
from ofbnas.study.provenance import git_commit, versions
from ofbnas.study.recorder import Recorder
from ofbnas.study.saved_subnet import save_with_row
from ofbnas.study.trial import CHECKPOINTS, device_name, remove_checkpoints
from ofbnas.table import store
from ofbnas.table.columns import COLUMNS, Row
from ofbnas.table.trust import row_warnings
from ofbnas.training import quality
from ofbnas.training.checkpoint import restart_if_stale
from ofbnas.training.data import Data
from ofbnas.training.events import Callback
from ofbnas.training.features import has_classifier
from ofbnas.training.finetune import finetune

# Columns that say how good the parent is on the images of the row.
OF_PARENT = ("parent_top1", "parent_val_top1", "parent_knn_top1")
# Columns that say how good a network is, which are measured again, each where it applies.
OF_NETWORK = ("top1", "top5", "val_top1", "knn_top1", "cka")
# Columns of a latency, which holds as long as the architecture stays.
OF_LATENCY = tuple(name for name in COLUMNS if "latency" in name)


@dataclass(frozen=True)
class Finetuning:
    """What is fine-tuned, and how.

    Attributes:
        network: The network of a table that it starts from.
        images: Which images it learns.
        config: Configuration of the training.
        seed: Random seed.
        new_classifier: Give it a new classifier; it gets one in any case where the images have
            another number of classes.
        parent_file: The file of its parent's weights, if they are not those of its study.
    """

    network: Network
    images: DataConfig
    config: FinetuneConfig
    seed: int = 0
    new_classifier: bool = False
    parent_file: Path | None = None

    def replaces_classifier(self) -> bool:
        """Whether the network gets a new classifier."""
        return self.new_classifier or needs_classifier(self.network.subnet.model, self.images)

    def study(self) -> str:
        """The name that its row gives as its study's."""
        return f"{self.network.row.study}-finetune"

    def learns_from_parent(self) -> bool:
        """Whether the network's own parent teaches it."""
        distill = self.config.distill
        return distill is not None and distill.teacher is None

    def start(self) -> Subnet:
        """The subnet as it is before the training."""
        subnet = self.network.subnet
        if not self.replaces_classifier():
            return subnet
        torch.manual_seed(self.seed)
        return with_classifier(subnet, self.images.num_classes)

    def record(self) -> str:
        """What the table records of the images, as JSON."""
        size = input_size(self.network.subnet.model)
        return record_of(self.images, self.network.row.model, {"input_size": size})

    def key(self) -> str:
        """A hash of all that the result depends on: a fine-tuning with the same one is resumed."""
        parts = [
            self.network.row.weights_sha256,
            self.config.model_dump(mode="json", exclude={"evaluate_every"}),  # changes no weight
            self.images.model_dump(mode="json"),
            self.seed,
            self.replaces_classifier(),
            str(self.parent_file),
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def needs_classifier(model: nn.Module, images: DataConfig) -> bool:
    """Whether a model has a classifier for another number of classes than the images have."""
    return has_classifier(model) and bool(model.num_classes != images.num_classes)


def parent_of(
    finetuning: Finetuning,
    study: StudyConfig | None,
    data: Data,
    callbacks: Sequence[Callback] = (),
) -> nn.Module:
    """The trained parent of a table's network, in evaluation mode, on the data's device.

    Args:
        finetuning: Of the network.
        study: The study that it belongs to, which says where its parent's weights are.
        data: The study's images, on which a parent that has no weights is trained.
        callbacks: Receive what happens if it is trained.

    Raises:
        InputError: Nothing says where the weights are, or they are of another model.
    """
    architecture = finetuning.network.subnet.architecture
    if finetuning.parent_file is not None:
        model = create_parent(architecture.model, architecture.kwargs)
        load_weights_(model, finetuning.parent_file)
        return model.to(data.device).eval()
    if study is None:
        raise InputError(
            f"{architecture.id}: its table is not a study's folder, so nothing says where the "
            "weights of its parent are, which would teach it; give --parent FILE or "
            "--study STUDY.yaml, or leave out the distillation with --no-distill"
        )
    if _identity(study.model.name, parent_kwargs(study)) != _identity(
        architecture.model, dict(architecture.kwargs)
    ):
        raise InputError(
            f"study {study.name} has the parent {study.model.name} with {parent_kwargs(study)}, "
            f"but {architecture.id} comes from {architecture.model} with "
            f"{dict(architecture.kwargs)}; give the study that found it"
        )
    return trained_parent(study, data, callbacks).model.to(data.device)


def _identity(model: str, kwargs: dict[str, Any]) -> str:
    """A model and its arguments as text; lists and tuples are the same."""
    return json.dumps([model, kwargs], sort_keys=True)


def run_finetuning(
    finetuning: Finetuning,
    data: Data,
    folder: Path,
    parent: nn.Module | None = None,
    callbacks: Sequence[Callback] = (),
) -> Row:
    """Fine-tune a table's network; write its history, the subnet and a row into a folder.

    A fine-tuning with the same settings that was interrupted is resumed.

    Args:
        finetuning: What is fine-tuned, and how.
        data: The images, on the device of the training.
        folder: Of the table for the result.
        parent: The network's parent, if it teaches; on the data's device.
        callbacks: Receive what happens.

    Returns:
        The row; with several processes, only that of the first one names the weights.

    Raises:
        InputError: The network cannot learn in this way.
        NotFiniteError: The loss became NaN or infinite.
    """
    trial, checkpoints = _begin(folder, finetuning.key())
    clock = Clock(checkpoints / "seconds.pt")
    recorder = Recorder(folder, trial, finetuning.study())
    start = finetuning.start()
    start = replace(start, model=start.model.to(data.device))
    config = finetuning.config
    before = {}
    if not finetuning.replaces_classifier():
        before = quality.on_test(start.model, data)
    teacher = None
    if config.distill is not None:
        # A teacher that the settings name takes the place of the parent.
        teacher = teacher_of(config.distill, start.model if parent is None else parent, data)
    tuned = restart_if_stale(
        partial(
            finetune,
            start,
            data,
            config,
            teacher=teacher,
            seed=finetuning.seed,
            callbacks=[clock, recorder, *callbacks],
            checkpoint=checkpoints / "finetune.pt",
        )
    )

    measured: dict[str, Any] = {
        "top1_before_finetune": before.get("top1"),
        **quality.on_test(tuned.model, data),
        **_on_validation(tuned, parent, data),
    }
    row = _row(finetuning, tuned, trial)
    row = replace(row, device=device_name(data.device), val_images=len(data.val), **measured)
    row = replace(row, warnings=row_warnings(row))
    if shard().rank != 0:
        return row
    row = save_with_row(tuned, row, folder, data, clock)
    remove_checkpoints(checkpoints)
    return row


def _row(finetuning: Finetuning, tuned: Subnet, trial: int) -> Row:
    """The row that a network came from, as far as it holds for what it has become."""
    before = finetuning.network.row
    architecture = tuned.architecture
    record = finetuning.record()
    kept: dict[str, Any] = dict.fromkeys((*OF_PARENT, *OF_NETWORK))
    if record == before.data:
        kept |= {name: getattr(before, name) for name in OF_PARENT}
    if architecture.id != before.arch_id:
        kept |= dict.fromkeys(OF_LATENCY)
    teacher_file = {"distill": {"teacher": {"checkpoint"}}}  # a path of this machine
    settings = finetuning.config.model_dump(
        mode="json", exclude_defaults=True, exclude=teacher_file
    )
    return replace(
        before,
        arch_id=architecture.id,
        study=finetuning.study(),
        trial=trial,
        status="complete",
        reason=None,
        model_kwargs=json.dumps(dict(architecture.kwargs), sort_keys=True),
        num_classes=finetuning.images.num_classes,
        dataset=label_of(finetuning.images),
        data=record,
        finetune_epochs=finetuning.config.epochs,
        seed=finetuning.seed,
        versions=json.dumps(versions()),
        git_commit=git_commit(),
        weights=None,
        weights_sha256=None,
        from_arch_id=before.arch_id,
        from_weights_sha256=before.weights_sha256,
        finetune=json.dumps(settings, sort_keys=True),
        **_costs(tuned),
        **kept,
    )


def _costs(subnet: Subnet) -> dict[str, Any]:
    """What a subnet and its parent cost: a new classifier changes it."""
    architecture = subnet.architecture
    parent = on_meta(architecture.model, architecture.kwargs).model
    axes = axes_of(parent, space={})
    sizes = [architecture.sizes[axis.name] for axis in axes]
    macs = cost_of(parent, axes, "macs")
    params = cost_of(parent, axes, "params")
    return {
        "gmacs": macs.of(sizes) / 1e9,
        "params": params.of(sizes),
        "parent_gmacs": macs.of(sizes_of(axes)) / 1e9,
        "parent_params": params.of(sizes_of(axes)),
    }


def _on_validation(subnet: Subnet, parent: nn.Module | None, data: Data) -> dict[str, float]:
    """A network's quality on the validation images; features are compared with its parent's."""
    if parent is None and not has_classifier(subnet.model):
        return {}
    return quality.on_validation(subnet.model, subnet.model if parent is None else parent, data)


def _begin(folder: Path, key: str) -> tuple[int, Path]:
    """The number of a fine-tuning's row, and the folder of its checkpoints.

    They are those of the interrupted one with the same key, if there is one. Otherwise the number
    is the next that no row and no other interrupted one has.
    """
    running = folder / CHECKPOINTS
    name = None
    if shard().rank == 0:  # others may not see the folder
        numbers = {path.name: int(path.name.split("-")[1]) for path in running.glob("trial-*-*")}
        free = max([store.next_trial(folder), *(number + 1 for number in numbers.values())])
        same = [known for known in sorted(numbers) if known.endswith(key)]
        name = same[0] if same else f"trial-{free:05d}-{key}"
        durable.make_folder(running / name)
    chosen = (parallel.from_first(None if name is None else name.encode()) or b"").decode()
    return int(chosen.split("-")[1]), running / chosen

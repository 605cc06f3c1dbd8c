"""One trial from parent to row: search, fine-tune, evaluate, save."""

from __future__ import annotations

import json
import platform
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ofbnas.config import StudyConfig
from ofbnas.config.model import label_of
from ofbnas.errors import one_line
from ofbnas.files import durable
from ofbnas.models.architecture import encode_sizes
from ofbnas.models.axes import input_size
from ofbnas.models.subnet import Subnet
from ofbnas.nas.search import SearchResult, search
from ofbnas.parallel import shard
from ofbnas.study.clock import Clock
from ofbnas.study.images import data_record
from ofbnas.study.parent import Parent, parent_with, teacher_of
from ofbnas.study.provenance import git_commit, versions
from ofbnas.study.recorder import Recorder
from ofbnas.study.saved_subnet import save_with_row
from ofbnas.table import store
from ofbnas.table.columns import Row
from ofbnas.table.trust import row_warnings
from ofbnas.training import quality
from ofbnas.training.checkpoint import restart_if_stale
from ofbnas.training.data import Data
from ofbnas.training.events import Callback
from ofbnas.training.finetune import finetune
from ofbnas.training.latency import latency

MAX_REASON = 500  # characters of a reason in a row
CHECKPOINTS = "checkpoints"  # in a study's folder, those of what is running


def run_trial(
    config: StudyConfig,
    params: Mapping[str, Any],
    trial: int,
    folder: Path,
    data: Data,
    parent_state: Mapping[str, Tensor],
    callbacks: Sequence[Callback] = (),
    gpus: float | None = None,
    *,
    rungs: Collection[int] | None = None,
    seed: int | None = None,
    inherited: str | None = None,
) -> Row:
    """Search and fine-tune once with the swept values; write the history, the subnet and the row.

    Args:
        config: The study.
        params: Swept fields by dotted name, with this trial's values.
        trial: Its number.
        folder: The study's.
        data: On the device the trial runs on.
        parent_state: The trained parent's tensors.
        callbacks: Receive what happens; at the study's rungs, the metrics include the trial's
            "seconds".
        gpus: GPUs that the trial holds; by default one for each process on CUDA.
        rungs: Epochs of its rungs; by default the study's.
        seed: Its seed; by default the study's plus its number.
        inherited: The row's column of that name.

    Returns:
        The row; with several processes, only that of the first one names the weights.

    Raises:
        InputError: The values are out of reach for the model.
        NotFiniteError: A loss became NaN or infinite.
    """
    checkpoints = checkpoint_folder(folder, trial)
    clock = Clock(checkpoints / "seconds.pt")
    recorder = Recorder(folder, trial, config.name)
    values = config.with_values(params)
    if rungs is None:
        rungs = config.rungs(values.search.epochs)
    if seed is None:
        seed = config.seed + trial
    stages = Stages(
        values,
        parent_with(values, parent_state, data.device),
        data,
        seed,
        checkpoints,
        callbacks=[clock, recorder, *callbacks],
    )

    result = stages.search(rungs)
    before = base_row(config, params, trial, "complete", seed)
    row = stages.finish(result, replace(before, inherited=inherited), folder, clock, gpus)
    if shard().rank == 0:
        drop_checkpoints(folder, trial)
    return row


@dataclass(frozen=True)
class Stages:
    """The stages of a trial, and what they have in common.

    Attributes:
        config: The study, with the trial's values of the swept fields.
        parent: Trained, on the data's device.
        data: The images.
        seed: The trial's.
        checkpoints: Folder of the trial's checkpoints.
        callbacks: Receive what happens.
    """

    config: StudyConfig
    parent: Parent
    data: Data
    seed: int
    checkpoints: Path
    callbacks: Sequence[Callback]

    def search(self, rungs: Collection[int]) -> SearchResult:
        """Search the parent, resuming from a checkpoint if there is one."""
        config = self.config.search
        searching = partial(
            search,
            self.parent.model,
            self.data,
            config,
            name=self.config.model.name,
            kwargs=self.parent.kwargs,
            axes=self.parent.axes,
            seed=self.seed,
            teacher=teacher_of(config.distill, self.parent.model, self.data),
            callbacks=self.callbacks,
            checkpoint=self.checkpoints / "search.pt",
            rungs=rungs,
        )
        return restart_if_stale(searching)

    def finetune(self, subnet: Subnet) -> Subnet:
        """Fine-tune what was found, if the study does that."""
        config = self.config.finetune
        if config is None:
            return subnet
        finetuning = partial(
            finetune,
            subnet,
            self.data,
            config,
            teacher=teacher_of(config.distill, self.parent.model, self.data),
            seed=self.seed,
            callbacks=self.callbacks,
            checkpoint=self.checkpoints / "finetune.pt",
        )
        return restart_if_stale(finetuning)

    def finish(
        self,
        result: SearchResult,
        row: Row,
        folder: Path,
        clock: Clock,
        gpus: float | None = None,
    ) -> Row:
        """Fine-tune what was found and measure it; write the subnet and the row.

        Args:
            result: What was found.
            row: What is known of the trial before it runs.
            folder: The study's.
            clock: Of the trial.
            gpus: As for `run_trial`.

        Returns:
            The row; with several processes, only that of the first one names the weights.
        """
        data = self.data
        before = quality.on_test(result.subnet.model, data)
        subnet = self.finetune(result.subnet)
        row = replace(
            row,
            top1_before_finetune=before.get("top1"),
            **_search_columns(self.config, result),
            **_subnet_columns(subnet, self.parent, data),
            **_parent_columns(self.parent, data),
            axes=len(self.parent.axes),
            val_images=len(data.val),
            device=device_name(data.device),
        )
        row = replace(row, warnings=row_warnings(row))

        # From here on only the first process measures and writes.
        if shard().rank != 0:
            return row
        if self.config.latency is not None:
            row = replace(row, **latency(subnet.model, self.parent.model, self.config.latency))
        return save_with_row(subnet, row, folder, data, clock, gpus)


def _search_columns(config: StudyConfig, result: SearchResult) -> dict[str, Any]:
    """The columns of a row about the search and its settings."""
    tuning = config.finetune
    return {
        "gmacs": result.macs / 1e9,
        "params": result.params,
        "budget": json.dumps(config.search.budget.model_dump(exclude_none=True)),
        "budget_note": result.note,
        "forced": result.forced,
        "search_epochs": config.search.epochs,
        "finetune_epochs": 0 if tuning is None else tuning.epochs,
    }


def _subnet_columns(subnet: Subnet, parent: Parent, data: Data) -> dict[str, Any]:
    """The columns of a row about the finished network."""
    kinds = {axis.name: axis.kind for axis in parent.axes}
    return {
        "arch_id": subnet.architecture.id,
        "architecture": encode_sizes(subnet.architecture.sizes, kinds),
        **quality.on_test(subnet.model, data),
        **quality.on_validation(subnet.model, parent.model, data),
    }


def _parent_columns(parent: Parent, data: Data) -> dict[str, Any]:
    """The columns of a row about the parent."""
    costs = parent.costs()
    return {
        "model_kwargs": json.dumps(dict(parent.kwargs), sort_keys=True),
        "image_size": input_size(parent.model)[1],
        "parent_gmacs": costs["gmacs"],
        "parent_params": costs["params"],
        **quality.of_parent(parent.model, data),
    }


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's kind."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.machine()


def reason_of(error: Exception) -> str:
    """What a row says of the exception that ended its trial."""
    return f"{type(error).__name__}: {one_line(error, MAX_REASON)}"[:MAX_REASON]


def write_failure(
    config: StudyConfig,
    params: Mapping[str, Any],
    trial: int,
    folder: Path,
    reason: str,
    seed: int | None = None,
) -> None:
    """Write the row of a trial that failed."""
    row = base_row(config, params, trial, "failed", seed)
    store.write_row(folder, replace(row, reason=reason, finished_at=datetime.now(UTC)))
    drop_checkpoints(folder, trial)


def write_pruned(
    config: StudyConfig,
    params: Mapping[str, Any],
    trial: int,
    folder: Path,
    reason: str,
    known: Mapping[str, Any],
    seed: int | None = None,
) -> None:
    """Write the row of a pruned trial: stopped early, with the columns that are known by then."""
    budget = config.with_values(params).search.budget.model_dump(exclude_none=True)
    row = replace(
        base_row(config, params, trial, "pruned", seed),
        reason=reason,
        budget=json.dumps(budget),
        finetune_epochs=0,
        finished_at=datetime.now(UTC),
        **known,
    )
    store.write_row(folder, row)
    drop_checkpoints(folder, trial)


def checkpoint_folder(folder: Path, trial: int) -> Path:
    """Where a running trial keeps its checkpoints."""
    return folder / CHECKPOINTS / f"trial-{trial:05d}"


def take_checkpoints(folder: Path, earlier: Sequence[int], trial: int) -> None:
    """Give the checkpoints of a run to the number that it goes on under.

    Args:
        folder: The study's.
        earlier: The numbers that the run had before, the latest last.
        trial: The number that it has now.
    """
    for number in reversed(earlier):
        checkpoints = checkpoint_folder(folder, number)
        if checkpoints.is_dir():
            durable.rename(checkpoints, checkpoint_folder(folder, trial))
            return


def drop_checkpoints(folder: Path, trial: int) -> None:
    """Remove the checkpoints of a finished trial."""
    remove_checkpoints(checkpoint_folder(folder, trial))


def remove_checkpoints(checkpoints: Path) -> None:
    """Remove a folder of checkpoints that nothing will resume from."""
    durable.remove(checkpoints)
    with suppress(OSError):  # not empty: other trials are running
        checkpoints.parent.rmdir()


def base_row(
    config: StudyConfig,
    params: Mapping[str, Any],
    trial: int,
    status: str,
    seed: int | None = None,
) -> Row:
    """What is known of a trial before it runs; its seed is by default the study's plus its number."""
    return Row(
        study=config.name,
        trial=trial,
        status=status,
        model=config.model.name,
        model_kwargs=json.dumps(config.model.kwargs, sort_keys=True),
        num_classes=config.data.num_classes,
        dataset=label_of(config.data),
        data=data_record(config),
        seed=config.seed + trial if seed is None else seed,
        versions=json.dumps(versions()),
        git_commit=git_commit(),
        swept=params,
    )

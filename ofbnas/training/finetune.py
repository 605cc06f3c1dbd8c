"""Fine-tuning of a subnet after a search."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ofbnas.config import FinetuneConfig
from ofbnas.errors import InputError
from ofbnas.models.axes import axes, final_embedding
from ofbnas.models.passes import FeaturesAndOutputs
from ofbnas.models.subnet import Subnet
from ofbnas.training.criterion import TaskLoss, task_loss
from ofbnas.training.data import Data
from ofbnas.training.events import Callback
from ofbnas.training.features import check_task, has_classifier
from ofbnas.training.plain import Loss, fit
from ofbnas.training.teacher import Teacher


def finetune(
    subnet: Subnet,
    data: Data,
    config: FinetuneConfig,
    *,
    teacher: nn.Module | Teacher | None = None,
    loss: TaskLoss | None = None,
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
    checkpoint: Path | None = None,
) -> Subnet:
    """The subnet after training with fixed sizes, with distillation if it is configured.

    Args:
        subnet: On the data's device; it is not changed.
        data: The data set. It learns from the training split; the validation split is looked at
            after epochs.
        config: Configuration of the training.
        teacher: The parent or another teacher, for distillation.
        loss: The loss of outputs, [images, classes], and labels, [] and differentiable; by default
            `config.loss`.
        seed: Random seed.
        callbacks: Called at each event.
        checkpoint: A file that is written after each epoch, and resumed from if it exists.

    Raises:
        InputError: The subnet has no classifier, and learns no features; or it is to be distilled,
            and does not say which units it kept.
        ValueError: Distillation is configured and there is no teacher.
        NotFiniteError: The loss became NaN or infinite.
    """
    distillation = None
    check_task(subnet.model, config.distill, "finetune")
    if config.distill is not None:
        if teacher is None:
            raise ValueError(
                "finetune.distill is set, but no teacher was given: pass the parent as teacher"
            )
        if not isinstance(teacher, Teacher):
            teacher = Teacher(teacher, config.distill)
        criterion = loss or task_loss(config.loss, config.label_smoothing)
        distillation = _distillation_loss(subnet, teacher, criterion)
    model = copy.deepcopy(subnet.model)  # the caller's subnet stays as it is
    fit(
        model,
        data,
        config,
        seed=seed,
        criterion=loss,
        loss=distillation,
        phase="finetune",
        callbacks=callbacks,
        checkpoint=checkpoint,
    )
    return replace(subnet, model=model)


def _distillation_loss(
    subnet: Subnet,
    teacher: Teacher,
    criterion: TaskLoss,
) -> Loss:
    """The loss of a subnet that learns from labels, if it has a classifier, and a teacher."""
    classifies = has_classifier(subnet.model)

    # The parent's channels that the subnet kept: the teacher's features are compared on these.
    embedding = final_embedding(axes(subnet.model, {}))
    kept = subnet.units.get(embedding.name)
    if kept is None:
        raise InputError(
            f"{subnet.architecture.id}: does not say which of its parent's channels it kept, so it "
            "cannot be distilled"
        )
    device = next(teacher.model.parameters()).device
    channels = torch.tensor(kept, device=device).flatten()

    def loss(
        learned: FeaturesAndOutputs,
        images: Tensor,
        labels: Tensor,
    ) -> Tensor:
        taught = teacher(images)
        if not classifies:
            return teacher.feature_loss(learned, taught, channels)
        task = criterion(learned.outputs, labels)
        return teacher.loss(task, learned, taught, channels)

    return loss

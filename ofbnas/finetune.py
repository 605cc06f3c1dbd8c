"""Training what a search found: a subnet in, a better subnet out."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ofbnas.axes import axes, final_embedding
from ofbnas.config import FinetuneConfig
from ofbnas.data import Data
from ofbnas.subnet import Subnet
from ofbnas.teacher import Teacher
from ofbnas.training import Loss, OnEpoch, fit


def finetune(
    subnet: Subnet,
    data: Data,
    config: FinetuneConfig,
    *,
    teacher: nn.Module | Teacher | None = None,
    seed: int = 0,
    on_epoch: OnEpoch | None = None,
    checkpoint: Path | None = None,
) -> Subnet:
    """The subnet after plain training, distilled from a teacher if the configuration says so.

    Args:
        subnet: On the data's device; it is not changed.
        data: Its training split is trained on; nothing else is looked at.
        config: Every number of the training.
        teacher: What is distilled from: the parent, or a teacher.
        seed: Of all randomness.
        on_epoch: Called after each epoch with its number, from 1, and its mean loss.
        checkpoint: A file that is written after each epoch, and gone on from if it is there.

    Raises:
        ValueError: The configuration asks for distillation and there is no teacher.
        NotFiniteError: The loss became NaN or infinite.
    """
    loss = None
    if config.distill is not None:
        if teacher is None:
            raise ValueError("finetune.distill is set, but no teacher was given: pass the parent as teacher")
        teacher = teacher if isinstance(teacher, Teacher) else Teacher(teacher, config.distill)
        loss = _distilling(subnet, teacher, config)
    model = copy.deepcopy(subnet.model)
    fit(model, data, config, seed=seed, loss=loss, on_epoch=on_epoch, checkpoint=checkpoint)
    return replace(subnet, model=model)


def _distilling(subnet: Subnet, teacher: Teacher, config: FinetuneConfig) -> Loss:
    """The loss of a student that learns from labels and a teacher."""
    criterion = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
    units = subnet.units[final_embedding(axes(subnet.model, {})).name]
    channels = torch.tensor(units, device=next(teacher.model.parameters()).device).flatten()

    def loss(learned: tuple[Tensor, Tensor], images: Tensor, labels: Tensor) -> Tensor:
        return teacher.loss(criterion(learned[1], labels), learned, teacher(images), channels)

    return loss

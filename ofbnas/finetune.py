"""Training what a search found: a subnet in, a better subnet out."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from ofbnas import losses
from ofbnas.config import FinetuneConfig
from ofbnas.data import Data
from ofbnas.subnet import Subnet
from ofbnas.training import OnEpoch, fit


def finetune(
    subnet: Subnet,
    data: Data,
    config: FinetuneConfig,
    *,
    teacher: nn.Module | None = None,
    seed: int = 0,
    on_epoch: OnEpoch | None = None,
) -> Subnet:
    """The subnet after plain training, distilled from a teacher if the configuration says so.

    Args:
        subnet: On the data's device; it is not changed.
        data: Its training split is trained on; nothing else is looked at.
        config: Every number of the training.
        teacher: What is distilled from, in evaluation mode.
        seed: Of the order and augmentation of images.
        on_epoch: Called after each epoch with its number, from 1, and its mean loss.

    Raises:
        ValueError: The configuration asks for distillation and there is no teacher.
        NotFiniteError: The loss became NaN or infinite.
    """
    torch.manual_seed(seed)
    distill = config.distill
    loss = None
    if distill is not None:
        if teacher is None:
            raise ValueError("finetune.distill is set, but no teacher was given: pass the parent as teacher")
        criterion, parent = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing), teacher.eval()

        def loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
            outputs = model(images)
            with torch.no_grad():
                goal = parent(images)
            soft = losses.distillation(outputs, goal, distill.temperature)
            return torch.lerp(criterion(outputs, labels), soft, distill.weight)

    model = copy.deepcopy(subnet.model)
    fit(model, data, **config.model_dump(exclude={"distill"}), seed=seed, loss=loss, on_epoch=on_epoch)
    return replace(subnet, model=model)

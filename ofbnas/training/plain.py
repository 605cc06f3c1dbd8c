"""Training of a fixed model: a parent, or a subnet."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ofbnas.config import TrainConfig
from ofbnas.models.axes import set_drop_path
from ofbnas.models.passes import FeaturesAndOutputs, Passes
from ofbnas.training.batches import Position
from ofbnas.training.criterion import TaskLoss, name_of, task_loss
from ofbnas.training.data import Data
from ofbnas.training.events import Callback, Phase
from ofbnas.training.loop import Losses, Run, train
from ofbnas.training.quality import of_epoch
from ofbnas.training.recipe import Average, Optimizers, grad_scaler, weights_optimizer

Loss = Callable[[FeaturesAndOutputs, Tensor, Tensor], Tensor]  # with the images


class PlainRun(Run):
    """A run, for `train`, in which the model keeps its sizes."""

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        config: TrainConfig,
        *,
        seed: int,
        criterion: TaskLoss | None = None,
        loss: Loss | None = None,
        phase: Phase = "parent",
    ) -> None:
        """Set up the training.

        Args:
            model: On the data's device; trained in place.
            data: The data set. It learns from the training split; the validation split is looked
                at after epochs.
            config: Configuration of the training.
            seed: Random seed.
            criterion: The loss of outputs and labels; by default that of the configuration.
            loss: The loss as a function of features and outputs, images and labels; by default
                `criterion` of outputs and labels.
            phase: What is trained.
        """
        super().__init__(data, config, seed)
        self.phase = phase
        self.settings = repr((config, seed, name_of(criterion)))
        self.model = model
        self.loss = loss
        self.criterion = criterion or task_loss(config.loss, config.label_smoothing)
        if config.drop_path:  # otherwise the model keeps its own
            set_drop_path(model, config.drop_path)
        scaler = grad_scaler(config, self.device)
        self.optimizers = Optimizers(config, self.length, scaler)
        self.optimizers.add(weights_optimizer(model, config), config)
        self.average = None
        if config.ema is not None:
            self.average = Average(config.ema, dict(model.named_parameters()))
        # Wrapped and compiled apart: `model` keeps the names that checkpoints use.
        passes = Passes(model)
        self.passes: Any = passes
        if config.compile:
            self.passes = torch.compile(passes)

    def losses(
        self,
        images: Tensor,
        labels: Tensor,
        part: int,
    ) -> Losses:
        """The task's loss."""
        passed: FeaturesAndOutputs = self.passes(images)
        if self.loss is not None:
            return {"task": self.loss(passed, images, labels)}
        return {"task": self.criterion(passed.outputs, labels)}

    def begin(self) -> None:
        """Put the model into training mode."""
        self.model.train()

    def after_step(
        self,
        position: Position,
        losses: Losses,
    ) -> Sequence[dict[str, Any]]:
        """Update the average of the weights."""
        if self.average is not None:
            parameters = dict(self.model.named_parameters())
            self.average.update(parameters, position.step)
        return []

    def validation(self) -> dict[str, float]:
        """How good the model is on the validation images, with averaged weights if there are any."""
        if self.average is None:
            return of_epoch(self.model, self.data)
        averaged = copy.deepcopy(self.model)
        averaged.load_state_dict(self.average.tensors, strict=False)
        return of_epoch(averaged, self.data)

    def end(self) -> None:
        """Give the model its averaged weights, stochastic depth turned off, in evaluation mode."""
        if self.average is not None:
            # Not strict: the average has parameters only, and buffers stay as they are.
            self.model.load_state_dict(self.average.tensors, strict=False)
        if self.config.drop_path:
            set_drop_path(self.model, 0.0)
        self.model.eval()

    def state(self) -> dict[str, Any]:
        """Weights, their average, and the optimizer's state."""
        (optimizer,) = self.optimizers.optimizers
        return {
            "model": self.model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scaler": self.optimizers.scaler.state_dict(),
            "average": {} if self.average is None else self.average.tensors,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore `state`."""
        self.model.load_state_dict(state["model"])
        (optimizer,) = self.optimizers.optimizers
        optimizer.load_state_dict(state["optimizer"])
        self.optimizers.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.tensors = state["average"]


def fit(
    model: nn.Module,
    data: Data,
    config: TrainConfig,
    *,
    seed: int,
    criterion: TaskLoss | None = None,
    loss: Loss | None = None,
    phase: Phase = "parent",
    callbacks: Sequence[Callback] = (),
    checkpoint: Path | None = None,
) -> None:
    """Train a model in place; the arguments are those of `PlainRun` and `train`.

    Raises:
        InputError: The data or the number of processes do not fit the configuration.
        NotFiniteError: The loss became NaN or infinite.
    """
    run = PlainRun(
        model,
        data,
        config,
        seed=seed,
        criterion=criterion,
        loss=loss,
        phase=phase,
    )
    train(run, callbacks=callbacks, checkpoint=checkpoint)

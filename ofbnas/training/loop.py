"""The training loop: parents, searches and fine-tuning all go through `train`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ofbnas.config import TrainConfig
from ofbnas.training.batches import Parts, Position, batches, length_of
from ofbnas.training.checkpoint import load_checkpoint, save_checkpoint
from ofbnas.training.data import Data
from ofbnas.training.events import Callback, Phase
from ofbnas.training.mean import Mean
from ofbnas.training.recipe import Optimizers, autocast, mixer

Losses = dict[str, Tensor]  # by name, [] each, on the device


class Run(ABC):
    """A training run, for `train`.

    A subclass defines the losses of a batch and the state of a checkpoint.

    Attributes:
        phase: What is trained, for messages and callbacks.
        optimizers: The optimizers of everything that is trained; a search replaces them when its
            network shrinks.
        epoch: Number of epochs that are done.
        history: A record of each decision and of each epoch, in order.
        settings: The run's settings as text: a checkpoint of a run with others is refused.
    """

    phase: Phase
    optimizers: Optimizers
    settings: str

    def __init__(
        self,
        data: Data,
        config: TrainConfig,
        seed: int,
    ) -> None:
        self.data = data
        self.config = config
        self.seed = seed
        self.device = data.device
        self.length = length_of(data, config)
        self.mix = mixer(config.augment, data.num_classes)
        self.epoch = 0
        self.history: list[dict[str, Any]] = []

    @abstractmethod
    def losses(
        self,
        images: Tensor,
        labels: Tensor,
        part: int,
    ) -> Losses:
        """Losses of one part of a batch by name, [] each; under autocast.

        Args:
            images: [images, channels, height, width].
            labels: Classes, [images], or shares of classes where images are mixed,
                [images, classes].
            part: Number of the part, from 0.
        """

    def total(self, losses: Losses) -> Tensor:
        """The loss to minimize, from the losses of one part, []."""
        (loss,) = losses.values()
        return loss

    def mixes(self) -> bool:
        """Whether images are mixed at present, if the configuration mixes them."""
        return True

    def step(self, parts: Parts, step: int) -> Losses:
        """Apply one optimizer step.

        Args:
            parts: Images and labels, in as many parts as gradients are accumulated over.
            step: Number of the step, from 0.

        Returns:
            The mean losses over the parts, on the device.
        """
        self.optimizers.begin(step)
        losses = self.accumulate(parts, step)
        self.optimizers.apply()
        return losses

    def accumulate(self, parts: Parts, step: int) -> Losses:
        """Accumulate the gradients of a batch and return its mean losses."""
        means: Losses = {}
        num_parts = len(parts)
        for part, (images, labels) in enumerate(parts):
            if self.mix is not None and self.mixes():
                images, labels = self.mix(images, labels)
            with autocast(self.config, self.device):
                losses = self.losses(images, labels, part)
            # Parts are equally large, so their gradients add up to those of the whole batch's mean.
            loss = self.total(losses) / num_parts
            self.optimizers.backward(loss)
            for name, value in losses.items():
                share = value.detach() / num_parts
                means[name] = means.get(name, 0) + share
        return means

    @abstractmethod
    def begin(self) -> None:
        """Put the model into training mode."""

    def after_step(
        self,
        position: Position,
        losses: Losses,
    ) -> Sequence[dict[str, Any]]:
        """Do what follows a step, and return records of decisions."""
        return []

    @abstractmethod
    def validation(self) -> dict[str, float]:
        """How good the network is on the validation images, by columns of the history.

        It is measured as if training ended now, and training goes on as if it had not been.
        """

    def projected_metrics(self) -> dict[str, float]:
        """Projected final metrics, for `Callback.on_rung`; only a search has rungs."""
        raise NotImplementedError(f"a run of phase {self.phase} has no rungs")

    @abstractmethod
    def end(self) -> None:
        """Put the model into its final state."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Plain tensors and values, from which `load_state` restores the run."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore `state` in a run that has just been made, with the same arguments."""


def train(
    run: Run,
    *,
    callbacks: Sequence[Callback] = (),
    checkpoint: Path | None = None,
    rungs: Collection[int] = (),
) -> None:
    """Train a run for its remaining epochs.

    Args:
        run: What is trained, in place.
        callbacks: Called at each event.
        checkpoint: A file that is written after each epoch, and resumed from if it exists.
        rungs: Epochs, from 1, after which a search is measured.

    Raises:
        InputError: The data or the number of processes do not fit the configuration.
        NotFiniteError: A loss became NaN or infinite.
    """
    state = load_checkpoint(checkpoint, run.settings, run.device)
    if state is not None:
        run.epoch = state["epoch"]
        run.history = list(state["history"])
        run.load_state(state)
    epochs = run.config.epochs
    for callback in callbacks:
        callback.on_fit_begin(run.phase, run.epoch, epochs)
        for record in run.history:
            callback.on_record(record)

    run.begin()
    epoch_losses = Mean()
    for position, parts in batches(run.data, run.config, run.seed, run.epoch):
        losses = run.step(parts, position.step)
        epoch_losses.add(losses)
        # Losses stay on the device here, so that a step does not wait for it.
        for callback in callbacks:
            callback.on_step(run.phase, position.step, losses)
        for record in run.after_step(position, losses):
            run.history.append(record)
            for callback in callbacks:
                callback.on_decision(record)
                callback.on_record(record)
        if not position.last_of_epoch:
            continue

        run.epoch = position.epoch + 1
        means = epoch_losses.take(f"{run.phase}, epoch {run.epoch}")
        record = _epoch_record(run, position, means)
        run.history.append(record)
        for callback in callbacks:
            callback.on_record(record)
        # A rung comes before its epoch's checkpoint, so that an interrupted one is reached again.
        if run.epoch in rungs:
            metrics = run.projected_metrics()
            for callback in callbacks:
                callback.on_rung(run.epoch, metrics)
        if checkpoint is not None:
            state = {"epoch": run.epoch, "history": run.history, **run.state()}
            save_checkpoint(checkpoint, state, run.settings)
        for callback in callbacks:
            callback.on_epoch(run.phase, run.epoch, epochs, means)

    run.end()
    for callback in callbacks:
        callback.on_end(run.phase)


def _epoch_record(run: Run, position: Position, means: Mapping[str, float]) -> dict[str, Any]:
    """A row of the history for an epoch that is done; every so often it has the accuracy.

    Args:
        run: What is trained.
        position: The last step of the epoch.
        means: Mean of each loss over the epoch.
    """
    every = run.config.evaluate_every
    is_last = run.epoch == run.config.epochs
    is_due = every > 0 and (run.epoch % every == 0 or is_last)
    return {
        "kind": "epoch",
        "phase": run.phase,
        "epoch": run.epoch,
        "step": position.step + 1,
        **means,
        "lr": run.optimizers.lr(),
        **(run.validation() if is_due else {}),
    }

"""One loop and one evaluation, shared by all that trains, alone or in several processes."""

from __future__ import annotations

import io
import logging
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.data.random_erasing import RandomErasing
from torch import Tensor, nn

from ofbnas import parallel
from ofbnas.axes import set_drop_path
from ofbnas.config import Length, TrainConfig
from ofbnas.data import Data, Epoch, Split
from ofbnas.errors import InputError, NotFiniteError
from ofbnas.parallel import Shard
from ofbnas.recipe import Average, Descent, autocast, grad_scaler, mixer, weights_optimizer
from ofbnas.supernet import Passes

Loss = Callable[[tuple[Tensor, Tensor], Tensor, Tensor], Tensor]
OnEpoch = Callable[[int, dict[str, float]], None]
log = logging.getLogger("ofbnas")


@dataclass(frozen=True)
class Accuracy:
    """Shares of images, in percent."""

    top1: float
    top5: float


@dataclass(frozen=True)
class Place:
    """Where a run stands: `step` counts over all epochs, from 0."""

    epoch: int
    step: int
    last_of_epoch: bool


def fit(
    model: nn.Module,
    data: Data,
    config: TrainConfig,
    *,
    seed: int,
    loss: Loss | None = None,
    on_epoch: OnEpoch | None = None,
    checkpoint: Path | None = None,
) -> None:
    """Train a model in place.

    Args:
        model: On the data's device.
        data: Its training split is trained on; nothing else is looked at.
        config: Every number of the training.
        seed: Of all randomness; torch's, numpy's and Python's own are set.
        loss: Loss of ((features, outputs), images, labels); by default cross-entropy.
        on_epoch: Called after each epoch with its number, from 1, and its mean loss.
        checkpoint: A file that is written after each epoch, and gone on from if it is there.

    Raises:
        InputError: The data or the number of processes do not fit the configuration.
        NotFiniteError: The loss became NaN or infinite.
    """
    criterion = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
    device, mix = data.device, mixer(config.augment, data.num_classes)
    if config.drop_path:  # otherwise the model keeps its own
        set_drop_path(model, config.drop_path)
    length = length_of(data, config)
    descent = Descent(config, length, grad_scaler(config, device))
    descent.add(weights_optimizer(model, config), config)
    optimizer, first, settings = descent.optimizers[0], 0, repr((config, seed))
    average = Average(config.ema, dict(model.named_parameters())) if config.ema is not None else None
    if (state := load_checkpoint(checkpoint, settings, device)) is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        descent.scaler.load_state_dict(state["scaler"])
        if average is not None:
            average.tensors = state["average"]
        first = state["epoch"]
    forward = Passes(model)
    run: Any = torch.compile(forward) if config.compile else forward
    mean = Mean()
    model.train()
    for place, parts in batches(data, config, seed, first):
        descent.begin(place.step)
        for images, labels in parts:
            images, labels = (images, labels) if mix is None else mix(images, labels)
            with autocast(config, device):
                both = run(images)
                value = criterion(both[1], labels) if loss is None else loss(both, images, labels)
            descent.backward(value / len(parts))
            mean.add({"loss": value})
        descent.end()
        if average is not None:
            average.update(dict(model.named_parameters()), place.step)
        if place.last_of_epoch:
            means = mean.take(f"training, epoch {place.epoch + 1}")
            if checkpoint is not None:
                state = {
                    "epoch": place.epoch + 1,
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "scaler": descent.scaler.state_dict(),
                    "average": average.tensors if average is not None else {},
                }
                save_checkpoint(checkpoint, state, settings)
            if on_epoch:
                on_epoch(place.epoch + 1, means)
    if average is not None:
        model.load_state_dict(average.tensors, strict=False)
    if config.drop_path:
        set_drop_path(model, 0.0)
    model.eval()


def length_of(data: Data, config: TrainConfig) -> Length:
    """Steps and epochs of a run."""
    return Length(config.epochs * data.num_batches(config.batch_size), config.epochs)


def batches(
    data: Data, config: TrainConfig, seed: int, first: int = 0
) -> Iterator[tuple[Place, list[tuple[Tensor, Tensor]]]]:
    """This process' part of each training batch, from the epoch `first` on, in as many parts as are accumulated.

    Randomness is set anew at each epoch, so a run that is gone on with needs no state of it.

    Raises:
        InputError: The batches cannot be dealt out evenly.
    """
    shard, augment, per_epoch = parallel.shard(), config.augment, data.num_batches(config.batch_size)
    size = min(config.batch_size, data.train_images)
    mixing = bool(augment.mixup or augment.cutmix)
    if odd := size % (shard.world * config.accumulate * (2 if mixing else 1)):
        raise InputError(
            f"batch_size {size} leaves {odd} images over when {shard.world} processes take {config.accumulate} parts "
            f"each{', of pairs that are mixed' if mixing else ''}: give a multiple"
        )
    erase = RandomErasing(augment.erasing, mode="pixel", device=str(data.device))
    for epoch in range(first, config.epochs):
        seed_all(seed, epoch, shard)
        dealt = Epoch(seed, epoch, augment.repeats, augment.rand_augment, shard)
        for index, (images, labels) in enumerate(data.shuffled(config.batch_size, dealt)):
            images = erase(images) if augment.erasing else images
            parts = list(zip(images.chunk(config.accumulate), labels.chunk(config.accumulate), strict=True))
            yield Place(epoch, epoch * per_epoch + index, index == per_epoch - 1), parts


def seed_all(seed: int, epoch: int, shard: Shard) -> None:
    """Set the randomness of torch, numpy and Python for an epoch of one process."""
    number = int(np.random.SeedSequence((seed, epoch, shard.rank)).generate_state(1)[0])
    torch.manual_seed(number)
    np.random.seed(number)  # noqa: NPY002 (timm's Mixup draws from it)
    random.seed(number)


def save_checkpoint(path: Path, state: Mapping[str, Any], settings: str) -> None:
    """Write plain tensors and values to a file that appears whole or not at all; the first process does.

    Args:
        path: The file.
        state: Plain tensors and values.
        settings: What the run was asked to do; `load_checkpoint` goes on only with the same.
    """
    if parallel.shard().rank != 0:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".writing")
    try:
        with beside.open("wb") as file:  # a file of Python's tells why it could not be written
            torch.save({**state, "settings": settings}, file)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def load_checkpoint(path: Path | None, settings: str, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """Read a checkpoint, without pickle's code; None where there is none.

    The first process reads it for all: another machine may not see the file yet, or at all.

    Raises:
        InputError: It belongs to a run with other settings.
    """
    there = path is not None and parallel.shard().rank == 0 and path.is_file()
    content = parallel.from_first(path.read_bytes() if there and path is not None else None)
    if content is None or path is None:
        return None
    state: dict[str, Any] = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    if state.pop("settings") != settings:
        raise InputError(f"{path}: was left by a run with other settings; delete it, or go on with the same settings")
    if "epoch" in state:
        log.info("%s: %s goes on after epoch %d", path.parent.name, path.stem, state["epoch"])
    return state


class Mean:
    """Running means of losses that stay on their device until they are asked for."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def state(self) -> dict[str, Any]:
        """Sums and count, for a checkpoint."""
        return {"sums": self.sums, "count": self.count}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self.sums, self.count = dict(state["sums"]), state["count"]

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add one step's values, [] each."""
        for name, value in values.items():
            held = self.sums.get(name)
            self.sums[name] = value.detach().clone() if held is None else held.add_(value.detach())
        self.count += 1

    def take(self, where: str) -> dict[str, float]:
        """The means since the last call, over all processes.

        Raises:
            NotFiniteError: One is NaN or infinite.
        """
        parallel.average_(self.sums.values())
        means = {name: float(value) / self.count for name, value in self.sums.items()}
        self.sums, self.count = {}, 0
        if odd := [f"{name} is {value}" for name, value in means.items() if not abs(value) < float("inf")]:
            raise NotFiniteError(f"{where}: {odd[0]}; a lower learning rate may help")
        return means


@torch.no_grad()
def evaluate(model: nn.Module, split: Split, batch_size: int = 256) -> Accuracy:
    """Top-1 and top-5 accuracy over all images of a split, each counted once, however many processes there are.

    Raises:
        InputError: The split holds fewer or more images than it promises.
    """
    training, device = model.training, next(model.parameters()).device
    model.eval()
    hits = torch.zeros(3, dtype=torch.int64, device=device)
    for images, labels in split.batches(batch_size, parallel.shard()):
        outputs = model(images)
        order = outputs.topk(min(5, outputs.shape[1]), dim=1).indices == labels[:, None]
        hits += torch.stack([order[:, 0].sum(), order.sum(), torch.tensor(len(labels), device=device)])
    model.train(training)
    parallel.total_(hits)
    top1, top5, seen = hits.tolist()
    if seen != len(split):
        raise InputError(f"{seen:,} images were read of a split that promises {len(split):,}: the data set is damaged")
    return Accuracy(100 * top1 / seen, 100 * top5 / seen)

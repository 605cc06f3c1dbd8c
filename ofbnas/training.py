"""One optimizer step, one loop and one evaluation, shared by all that trains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch import Tensor, nn

from ofbnas.data import Data, Split
from ofbnas.errors import InputError, NotFiniteError

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
OnEpoch = Callable[[int, dict[str, float]], None]


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
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    weight_decay: float,
    warmup: float,
    label_smoothing: float,
    clip_grad: float | None,
    seed: int,
    loss: Loss | None = None,
    on_epoch: OnEpoch | None = None,
    checkpoint: Path | None = None,
) -> None:
    """Train a model in place with AdamW and a cosine schedule.

    Args:
        model: On the data's device.
        data: Its training split is trained on; nothing else is looked at.
        epochs: Passes over the training images.
        batch_size: Images per step.
        lr: Highest learning rate.
        weight_decay: Weight decay of matrices; vectors and what the model exempts do not decay.
        warmup: Share of the steps in which the learning rate rises.
        label_smoothing: Of the cross-entropy.
        clip_grad: Largest norm of the gradient.
        seed: Of the order and augmentation of images.
        loss: Loss of (model, images, labels); by default cross-entropy.
        on_epoch: Called after each epoch with its number, from 1, and its mean loss.
        checkpoint: A file that is written after each epoch, and gone on from if it is there.

    Raises:
        NotFiniteError: The loss became NaN or infinite.
    """
    criterion = nn.CrossEntropyLoss(label_smoothing=label_smoothing)
    optimizer = adamw(dict(model.named_parameters()), lr, weight_decay, exempt(model))
    first, settings = 0, repr((epochs, batch_size, lr, weight_decay, warmup, label_smoothing, clip_grad, seed))
    if checkpoint is not None and checkpoint.is_file():
        state = load_checkpoint(checkpoint, settings)
        model.load_state_dict(state["model"])
        load_optimizer_state([optimizer], dict(model.named_parameters()), state["optimizer"])
        first = state["epoch"]
    steps = epochs * data.num_batches(batch_size)
    schedule = cosine(optimizer, steps, warmup)
    mean = Mean()
    model.train()
    for place, images, labels in batches(data, epochs, batch_size, seed, first):
        schedule.step_update(place.step)
        value = criterion(model(images), labels) if loss is None else loss(model, images, labels)
        descend(value, [optimizer], clip_grad)
        mean.add({"loss": value})
        if place.last_of_epoch:
            means = mean.take(f"training, epoch {place.epoch + 1}")
            if checkpoint is not None:
                moments = optimizer_state([optimizer], dict(model.named_parameters()))
                state = {"epoch": place.epoch + 1, "model": model.state_dict(), "optimizer": moments}
                save_checkpoint(checkpoint, state, settings)
            if on_epoch:
                on_epoch(place.epoch + 1, means)
    model.eval()


def batches(data: Data, epochs: int, size: int, seed: int, first: int = 0) -> Iterator[tuple[Place, Tensor, Tensor]]:
    """Training batches of all epochs from the `first` on, counted from 0, with where they stand."""
    per_epoch = data.num_batches(size)
    for epoch in range(first, epochs):
        for index, (images, labels) in enumerate(data.shuffled(size, seed, epoch)):
            yield Place(epoch, epoch * per_epoch + index, index == per_epoch - 1), images, labels


def descend(loss: Tensor, optimizers: Iterable[torch.optim.Optimizer], clip_grad: float | None) -> None:
    """One step of every optimizer along one backward pass.

    Args:
        loss: [].
        optimizers: The first one's gradients are clipped.
        clip_grad: Their largest norm; None does not clip.
    """
    optimizers = list(optimizers)
    for optimizer in optimizers:
        optimizer.zero_grad()
    loss.backward()
    if clip_grad is not None:
        first = optimizers[0].param_groups
        nn.utils.clip_grad_norm_([p for group in first for p in group["params"]], clip_grad)
    for optimizer in optimizers:
        optimizer.step()


def adamw(
    parameters: Mapping[str, nn.Parameter],
    lr: float,
    weight_decay: float,
    exempt: Iterable[str] = (),
    betas: tuple[float, float] = (0.9, 0.999),
) -> torch.optim.AdamW:
    """AdamW over named parameters; vectors, scalars and exempt names do not decay."""
    exempt = set(exempt)
    still = [p for name, p in parameters.items() if p.ndim <= 1 or name in exempt]
    decaying = [p for name, p in parameters.items() if not (p.ndim <= 1 or name in exempt)]
    groups: list[dict[str, Any]] = [{"params": decaying}, {"params": still, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=lr,
        betas=betas,
        weight_decay=weight_decay,
        fused=True,
    )


def exempt(model: nn.Module) -> set[str]:
    """The parameters that a timm model wants not to decay."""
    names: Any = getattr(model, "no_weight_decay", set)
    return set(names())


def cosine(optimizer: torch.optim.Optimizer, steps: int, warmup: float) -> CosineLRScheduler:
    """timm's cosine schedule over steps, down to 1 % of the learning rate, after a linear warm-up.

    Args:
        optimizer: Its groups' learning rates are the highest ones.
        steps: Optimizer steps in all.
        warmup: Share of them in which the rate rises.
    """
    rising = min(int(steps * warmup), steps - 1)
    lr = optimizer.param_groups[0]["lr"]
    return CosineLRScheduler(
        optimizer,
        t_initial=max(1, steps - rising),
        lr_min=lr / 100,
        warmup_t=rising,
        warmup_lr_init=lr / 100,
        warmup_prefix=True,
        t_in_epochs=False,
    )


def optimizer_state(
    optimizers: Iterable[torch.optim.Optimizer], parameters: Mapping[str, nn.Parameter]
) -> dict[str, dict[str, Tensor]]:
    """Moments and step counts by kind ("exp_avg", "exp_avg_sq", "step"), then by the parameter's name."""
    found: dict[str, dict[str, Tensor]] = {}
    for optimizer in optimizers:
        for name, parameter in parameters.items():
            for kind, tensor in optimizer.state.get(parameter, {}).items():
                found.setdefault(kind, {})[name] = tensor
    return found


def load_optimizer_state(
    optimizers: Iterable[torch.optim.Optimizer],
    parameters: Mapping[str, nn.Parameter],
    state: Mapping[str, Mapping[str, Tensor]],
) -> None:
    """Give optimizers the state that `optimizer_state` found; names they do not hold are passed over."""
    names = {parameter: name for name, parameter in parameters.items()}
    for optimizer in optimizers:
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            name = names[parameter]
            held = {kind: tensors[name].clone() for kind, tensors in state.items() if name in tensors}
            if held:
                optimizer.state[parameter] = held


def save_checkpoint(path: Path, state: Mapping[str, Any], settings: str) -> None:
    """Write plain tensors and values, and torch's random state, to a file that appears whole or not at all.

    Args:
        path: The file.
        state: Plain tensors and values.
        settings: What the run was asked to do; `load_checkpoint` goes on only with the same.
    """
    random = {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".writing")
    torch.save({**state, "random": random, "settings": settings}, beside)
    beside.replace(path)


def load_checkpoint(path: Path, settings: str, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint, without pickle's code, and set torch's random state to what it was.

    Raises:
        InputError: It belongs to a run with other settings.
    """
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    if state.pop("settings") != settings:
        raise InputError(f"{path}: was left by a run with other settings; delete it, or go on with the same settings")
    random = state.pop("random")
    torch.set_rng_state(random["cpu"].cpu())
    if random["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([one.cpu() for one in random["cuda"]])
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
        """The means since the last call.

        Raises:
            NotFiniteError: One is NaN or infinite.
        """
        means = {name: float(value) / self.count for name, value in self.sums.items()}
        self.sums, self.count = {}, 0
        if odd := [f"{name} is {value}" for name, value in means.items() if not abs(value) < float("inf")]:
            raise NotFiniteError(f"{where}: {odd[0]}; a lower learning rate may help")
        return means


@torch.no_grad()
def evaluate(model: nn.Module, split: Split, batch_size: int = 256) -> Accuracy:
    """Top-1 and top-5 accuracy over all images of a split, each counted once."""
    training = model.training
    model.eval()
    hits = torch.zeros(2, dtype=torch.int64, device=split.labels.device)
    for images, labels in split.batches(batch_size):
        outputs = model(images)
        order = outputs.topk(min(5, outputs.shape[1]), dim=1).indices == labels[:, None]
        hits += torch.stack([order[:, 0].sum(), order.sum()])
    model.train(training)
    top1, top5 = (100 * hits.double() / len(split)).tolist()
    return Accuracy(top1, top5)

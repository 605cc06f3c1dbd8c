"""What a training recipe is made of, out of timm's and torch's parts: optimizers, schedules, mixing, averaging."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from timm.data import Mixup
from timm.optim import create_optimizer_v2, param_groups_layer_decay, param_groups_weight_decay
from timm.scheduler import create_scheduler_v2
from timm.utils import dispatch_clip_grad
from torch import Tensor, nn

from ofbnas import parallel
from ofbnas.config import AugmentConfig, Length, RateConfig, TrainConfig
from ofbnas.errors import InputError

FUSED = ("adamw", "adam")


class Descent:
    """Optimizers with their schedules, and one update of all of them from the gradients of all processes."""

    def __init__(self, config: TrainConfig, length: Length, scaler: torch.amp.GradScaler) -> None:
        self.config, self.length, self.scaler = config, length, scaler
        self.optimizers: list[torch.optim.Optimizer] = []
        self.schedules: list[Any] = []

    def add(self, optimizer: torch.optim.Optimizer, rate: RateConfig, length: Length | None = None) -> None:
        """Take an optimizer at the highest learning rate of its schedule; the first one's gradients are clipped."""
        self.optimizers.append(optimizer)
        self.schedules.append(schedule(optimizer, rate, self.length if length is None else length))

    def begin(self, step: int) -> None:
        """Set learning rates for a step, counted from 0, and forget gradients."""
        for one in self.schedules:
            one.step_update(step)
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def backward(self, loss: Tensor) -> None:
        """Add a loss's gradients to those that are there."""
        self.scaler.scale(loss).backward()

    def end(self) -> None:
        """Average gradients over processes, clip them, and update."""
        groups = [[p for group in o.param_groups for p in group["params"]] for o in self.optimizers]
        parallel.average_(p.grad for group in groups for p in group if p.grad is not None)
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        if self.config.clip_grad is not None:
            clipped = [p for p in groups[0] if p.grad is not None]
            dispatch_clip_grad(clipped, self.config.clip_grad, mode=self.config.clip_mode)
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()


def grad_scaler(config: TrainConfig, device: torch.device) -> torch.amp.GradScaler:
    """What keeps float16 gradients from vanishing; it does nothing for other types."""
    return torch.amp.GradScaler(device.type, enabled=config.amp == "float16")


def autocast(config: TrainConfig, device: torch.device) -> torch.autocast:
    """Automatic mixed precision, if it is asked for."""
    dtype = getattr(torch, config.amp) if config.amp else None
    return torch.autocast(device.type, dtype, enabled=config.amp is not None)


def weights_optimizer(
    model: nn.Module, config: TrainConfig, more: Mapping[str, nn.Parameter] | None = None
) -> torch.optim.Optimizer:
    """timm's optimizer of a model; vectors and what the model exempts do not decay, nor do `more` parameters.

    Raises:
        InputError: timm knows no such optimizer, or it lacks a setting.
    """
    names: Any = getattr(model, "no_weight_decay", set)
    exempt = set(names())
    if config.layer_decay is not None:
        groups = param_groups_layer_decay(
            model, config.weight_decay, no_weight_decay_list=exempt, layer_decay=config.layer_decay
        )
    else:
        groups = param_groups_weight_decay(model, config.weight_decay, no_weight_decay_list=exempt)
    groups += [{"params": list(more.values()), "weight_decay": 0.0}] if more else []
    extra: dict[str, Any] = {"fused": True} if config.optimizer in FUSED else {}
    if config.betas is not None:
        extra["betas"] = config.betas
    try:
        made: torch.optim.Optimizer = create_optimizer_v2(
            groups, config.optimizer, config.lr, config.weight_decay, **extra
        )
    except (ValueError, TypeError, AssertionError) as error:
        raise InputError(f"optimizer {config.optimizer}: {error}; timm.optim.list_optimizers() has all") from None
    return made


def adam(
    parameters: Iterable[nn.Parameter], lr: float, betas: Sequence[float] = (0.9, 0.999), weight_decay: float = 0.0
) -> torch.optim.Optimizer:
    """AdamW over parameters that are all treated alike."""
    betas = (betas[0], betas[1])
    return torch.optim.AdamW(list(parameters), lr=lr, betas=betas, weight_decay=weight_decay, fused=True)


def schedule(optimizer: torch.optim.Optimizer, rate: RateConfig, length: Length) -> Any:
    """timm's schedule over the steps of a run, after a linear warm-up; `step_update` sets the rate of a step."""
    lr = max(group["lr"] for group in optimizer.param_groups)
    steps = max(1, int(length.steps))
    rising = min(int(rate.warmup.of(length)), steps - 1)
    constant = rate.schedule == "constant"
    made, _ = create_scheduler_v2(
        optimizer,
        sched="cosine" if constant else rate.schedule,
        num_epochs=steps - rising,
        min_lr=lr if constant else lr * rate.end_share,
        warmup_lr=lr * rate.start_share,
        warmup_epochs=rising,
        warmup_prefix=True,
        decay_rate=1.0,
        step_on_epochs=False,
        updates_per_epoch=1,
    )
    return made


def mixer(config: AugmentConfig, num_classes: int) -> Mixup | None:
    """timm's Mixup and CutMix, if either is on: of images and labels to images and shares of classes."""
    if not config.mixup and not config.cutmix:
        return None
    return Mixup(
        config.mixup,
        config.cutmix,
        prob=config.mix_prob,
        switch_prob=config.switch_prob,
        label_smoothing=0.0,
        num_classes=num_classes,
    )


class Average:
    """An exponential moving average of tensors by name; its decay rises with the steps, as timm's ModelEmaV3 can."""

    def __init__(self, decay: float, tensors: Mapping[str, Tensor]) -> None:
        self.decay = decay
        self.tensors = {name: tensor.detach().clone() for name, tensor in tensors.items()}

    @torch.no_grad()
    def update(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Take in the tensors after a step, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.tensors.values()), [tensors[name].detach() for name in self.tensors], 1 - decay)

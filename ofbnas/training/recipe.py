"""Parts of a training recipe, from timm and torch: optimizers, schedules, mixing, averaging."""

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

FUSED = ("adamw", "adam")  # optimizers whose update torch does in one kernel


class Optimizers:
    """Optimizers with their schedules, which take their steps together."""

    def __init__(
        self,
        config: TrainConfig,
        length: Length,
        scaler: torch.amp.GradScaler,
    ) -> None:
        self.config = config
        self.length = length
        self.scaler = scaler
        self.optimizers: list[torch.optim.Optimizer] = []
        self.schedules: list[Any] = []

    def add(
        self,
        optimizer: torch.optim.Optimizer,
        rate: RateConfig,
        length: Length | None = None,
    ) -> None:
        """Add an optimizer, made with the highest learning rate of its schedule.

        Args:
            optimizer: The optimizer; only the first one added has its gradients clipped.
            rate: Its learning rate and schedule.
            length: Length of the schedule; by default that of the whole run.
        """
        if length is None:
            length = self.length
        self.optimizers.append(optimizer)
        self.schedules.append(schedule(optimizer, rate, length))

    def lr(self) -> float:
        """The highest learning rate of the weights in the present step."""
        return max(float(group["lr"]) for group in self.optimizers[0].param_groups)

    def begin(self, step: int) -> None:
        """Set the learning rates of a step, counted from 0, and reset gradients."""
        for scheduler in self.schedules:
            scheduler.step_update(step)
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss to the accumulated ones."""
        self.scaler.scale(loss).backward()

    def divide(self, by: Tensor) -> None:
        """Divide gradients, []; what is not finite then becomes 0, as float16 may overflow."""
        for optimizer in self.optimizers:
            for parameter in _with_gradients(optimizer):
                if parameter.grad is not None:
                    parameter.grad.div_(by).nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)

    def apply(self) -> None:
        """Apply one optimizer step: average gradients over processes, clip them, and update."""
        gradients: list[Tensor] = []
        for optimizer in self.optimizers:
            gradients += [p.grad for p in _with_gradients(optimizer) if p.grad is not None]
        parallel.average_(gradients)

        # Clipping limits true gradients, so float16's loss scale has to be taken out of them first.
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        if self.config.clip_grad is not None:
            dispatch_clip_grad(
                _with_gradients(self.optimizers[0]),
                self.config.clip_grad,
                mode=self.config.clip_mode,
            )
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()


def _with_gradients(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The parameters of an optimizer that have a gradient."""
    parameters: list[Tensor] = []
    for group in optimizer.param_groups:
        parameters += [p for p in group["params"] if p.grad is not None]
    return parameters


def grad_scaler(
    config: TrainConfig,
    device: torch.device,
) -> torch.amp.GradScaler:
    """The loss scaler that keeps float16 gradients from vanishing; disabled for other types."""
    return torch.amp.GradScaler(device.type, enabled=config.amp == "float16")


def autocast(config: TrainConfig, device: torch.device) -> torch.autocast:
    """Automatic mixed precision, if it is configured."""
    if config.amp is None:
        return torch.autocast(device.type, enabled=False)
    dtype = getattr(torch, config.amp)
    return torch.autocast(device.type, dtype)


def weights_optimizer(
    model: nn.Module,
    config: TrainConfig,
    more: Mapping[str, nn.Parameter] | None = None,
) -> torch.optim.Optimizer:
    """timm's optimizer of a model's weights.

    Vectors, parameters that the model exempts, and `more` have no weight decay.

    Args:
        model: The model.
        config: Names the optimizer and its settings.
        more: Further parameters to train, by name.

    Raises:
        InputError: timm has no such optimizer, or it does not support a setting.
    """
    no_weight_decay: Any = getattr(model, "no_weight_decay", set)
    exempt = set(no_weight_decay())
    if config.layer_decay is not None:
        groups = param_groups_layer_decay(
            model, config.weight_decay, no_weight_decay_list=exempt, layer_decay=config.layer_decay
        )
    else:
        groups = param_groups_weight_decay(
            model,
            config.weight_decay,
            no_weight_decay_list=exempt,
        )
    if more:
        groups.append({"params": list(more.values()), "weight_decay": 0.0})

    options: dict[str, Any] = {}
    if config.optimizer in FUSED:
        options["fused"] = True
    if config.betas is not None:  # otherwise those of the optimizer
        options["betas"] = config.betas
    try:
        optimizer: torch.optim.Optimizer = create_optimizer_v2(
            groups,
            config.optimizer,
            config.lr,
            config.weight_decay,
            **options,
        )
    except (ValueError, TypeError, AssertionError) as error:
        raise InputError(
            f"optimizer {config.optimizer}: {error}; timm.optim.list_optimizers() has all"
        ) from None
    return optimizer


def adamw(
    parameters: Iterable[nn.Parameter],
    lr: float,
    betas: Sequence[float] = (0.9, 0.999),
    weight_decay: float = 0.0,
) -> torch.optim.Optimizer:
    """AdamW with the same settings for all parameters."""
    return torch.optim.AdamW(
        list(parameters),
        lr=lr,
        betas=(betas[0], betas[1]),
        weight_decay=weight_decay,
        fused=True,
    )


def schedule(
    optimizer: torch.optim.Optimizer,
    rate: RateConfig,
    length: Length,
) -> Any:
    """timm's schedule over the steps of a run, with a linear warm-up.

    Its method `step_update` sets the learning rates of a step.
    """
    lr = max(group["lr"] for group in optimizer.param_groups)
    steps = max(1, int(length.steps))
    warmup_steps = int(rate.warmup.of(length))
    warmup_steps = min(warmup_steps, steps - 1)  # at least one step at the highest rate

    # timm has no constant schedule; a cosine that ends at its highest rate is one.
    constant = rate.schedule == "constant"
    # With one update per epoch and `step_on_epochs` off, timm's epochs are our steps.
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched="cosine" if constant else rate.schedule,
        num_epochs=steps - warmup_steps,
        min_lr=lr if constant else lr * rate.end_share,
        warmup_lr=lr * rate.start_share,
        warmup_epochs=warmup_steps,
        warmup_prefix=True,
        decay_rate=1.0,
        step_on_epochs=False,
        updates_per_epoch=1,
    )
    return scheduler


def mixer(config: AugmentConfig, num_classes: int) -> Mixup | None:
    """timm's Mixup and CutMix; None if both are off. Labels become shares of classes."""
    if not config.mixup and not config.cutmix:
        return None
    # Smoothing is left to the loss, which smooths the labels of images that are not mixed, too.
    return Mixup(
        config.mixup,
        config.cutmix,
        prob=config.mix_prob,
        switch_prob=config.switch_prob,
        label_smoothing=0.0,
        num_classes=num_classes,
    )


class Average:
    """An exponential moving average of tensors by name.

    Its decay rises with the steps, as in timm's ModelEmaV3, so that early weights are soon
    forgotten.
    """

    def __init__(self, decay: float, tensors: Mapping[str, Tensor]) -> None:
        self.decay = decay
        self.tensors: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            self.tensors[name] = tensor.detach().clone()

    @torch.no_grad()
    def update(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Update the average with the tensors after a step, counted from 0."""
        rising = (1 + step) / (10 + step)
        decay = min(self.decay, rising)
        torch._foreach_lerp_(
            list(self.tensors.values()),
            [tensors[name].detach() for name in self.tensors],
            1 - decay,
        )

"""The models that benchmarks/gpu.py measures, and on how many images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import timm
import torch
from torch import nn

from ofbnas.config import SearchConfig


@dataclass(frozen=True)
class Model:
    """A model to measure.

    Attributes:
        name: timm's name.
        batch: Images of a training step.
        kwargs: Further arguments of timm.create_model.
    """

    name: str
    batch: int
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def made(self, device: str) -> nn.Module:
        """The model with random weights."""
        torch.manual_seed(0)
        return timm.create_model(self.name, **self.kwargs).to(device)


@dataclass(frozen=True)
class Setting:
    """What is measured, and where.

    Attributes:
        device: "cuda", or "cpu" for tiny models.
        models: Whose steps are compared.
        timed: Whose subnet is timed against it.
        compressed: What the time of a compression is measured on.
        rounds: Measured steps of each kind.
        batches: Timed batches of each network.
        batch_sizes: Of these batches.
        scoring_images: Of the compression whose time is measured.
        compensation_images: Of the same.
    """

    device: str
    models: tuple[Model, ...]
    timed: Model
    compressed: Model
    rounds: int
    batches: int
    batch_sizes: tuple[int, ...]
    scoring_images: int
    compensation_images: int


DEIT_S = Model("deit_small_patch16_224", 128)
DEIT_B = Model("deit_base_patch16_224", 128)
SWIN_T = Model("swin_tiny_patch4_window7_224", 128)
DEFAULTS = SearchConfig(epochs=0, budget={"gmacs_share": 0.5})
WHOLE = Setting(
    "cuda", (DEIT_S, DEIT_B, SWIN_T), DEIT_S, DEIT_B, rounds=10, batches=50, batch_sizes=(1, 256),
    scoring_images=DEFAULTS.training_free.scoring_images, compensation_images=DEFAULTS.compensation.images,
)  # fmt: skip

TINY = {"img_size": 32, "embed_dim": 32, "num_classes": 10}
TINY_DEIT = Model("deit_tiny_patch16_224", 4, TINY | {"depth": 2, "num_heads": 2})
TINY_SWIN = Model(
    "swin_tiny_patch4_window7_224", 4, TINY | {"depths": (1, 1), "num_heads": (1, 2), "window_size": 2}
)  # fmt: skip
SMALL = Setting(
    "cpu", (TINY_DEIT, TINY_SWIN), TINY_DEIT, TINY_DEIT, rounds=2, batches=3, batch_sizes=(1, 4),
    scoring_images=8, compensation_images=8,
)  # fmt: skip

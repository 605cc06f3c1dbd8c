"""Presets: `preset: reference` fills in each value of a section that is not given."""

from __future__ import annotations

from typing import Any

THIRD_OF_AN_EPOCH = {"epochs": 1 / 3}
WARMUP = {"epochs": 20}
AUGMENT = {
    "rand_augment": "rand-m9-mstd0.5-inc1",
    "erasing": 0.25,
    "repeats": 3,
    "mixup": 0.8,
    "cutmix": 1.0,
}

# Spans are single values, though they may be written as mappings: {epochs: 20} is not merged.
SPANS = ("warmup", "decide_by", "decision_interval", "one_hot_warmup")

# The published code of OFB for DeiT on ImageNet: a search of 100 epochs, in which all axes are
# decided by the 50th, and 300 epochs of fine-tuning.
REFERENCE: dict[str, dict[str, Any]] = {
    "search": {
        "epochs": 100,
        "decide_by": {"epochs": 50},
        "batch_size": 1024,
        "lr": 1e-3,
        "weight_decay": 1e-3,
        "warmup": WARMUP,
        "label_smoothing": 0.1,
        "clip_grad": None,
        "drop_path": 0.1,
        "augment": AUGMENT,
        "alpha": {"lr": 1e-3, "betas": [0.5, 0.999], "spread": 1.0, "warmup": WARMUP},
        "residual_mask": False,
        "importance": {
            "start": "noise",
            "mean": 0.0,
            "std": 0.2,
            "norm_attn": 4e-4,
            "norm_mlp": 1e-4,
            "norm_embed": 1e-4,
        },
        "importance_weight": {"start": 0.99, "end": 0.10, "warmup": WARMUP},
        "one_hot_weight": 0.5,
        "one_hot_warmup": 0.0,
        "budget_weight": 5.0,
        "budget_ascent": 0.0,
        "decided_weights": "searched",
        "decision_interval": THIRD_OF_AN_EPOCH,
        "threshold": 0.2,
        "pmim": {
            "weight": 1.0,
            "start_ratio": 0.05,
            "mask_ratio": 0.25,
            "warmup": WARMUP,
            "decoder": {"warmup": WARMUP},
        },
    },
    "finetune": {
        "epochs": 300,
        "batch_size": 1024,
        "lr": 6e-4,
        "layer_decay": 0.95,
        "weight_decay": 0.05,
        "warmup": WARMUP,
        "label_smoothing": 0.1,
        "clip_grad": None,
        "drop_path": 0.1,
        "augment": AUGMENT,
    },
}
PRESETS = {"reference": REFERENCE}


def with_preset(value: Any, section: str) -> Any:
    """A section's values, completed from the preset that it names.

    Args:
        value: Values as they were given; anything but a mapping is left to validation.
        section: Name of the section in the preset.

    Raises:
        ValueError: There is no such preset.
    """
    if not isinstance(value, dict) or "preset" not in value:
        return value
    name = value["preset"]
    if not isinstance(name, str) or name not in PRESETS:
        raise ValueError(f"preset {str(name)[:80]} is unknown, expected {', '.join(PRESETS)}")
    given = {key: entry for key, entry in value.items() if key != "preset"}
    return _completed(given, PRESETS[name][section])


def _completed(given: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """The given values, and those of the base where none is given; nested sections alike."""
    merged = dict(base)
    for key, value in given.items():
        is_section = isinstance(value, dict) and isinstance(base.get(key), dict)
        if is_section and key not in SPANS:
            merged[key] = _completed(value, base[key])
        else:
            merged[key] = value
    return merged

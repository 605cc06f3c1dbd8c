"""Values to start from, by name: a section that says `preset: reference` has these where it gives none itself."""

from __future__ import annotations

from typing import Any

THIRD_OF_AN_EPOCH = {"epochs": 1 / 3}
WARMUP = {"epochs": 20}
AUGMENT = {"rand_augment": "rand-m9-mstd0.5-inc1", "erasing": 0.25, "repeats": 3, "mixup": 0.8, "cutmix": 1.0}

# The published code of OFB: one run of 100 epochs for DeiT on ImageNet, decided by the 50th, and 300 of fine-tuning.
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
        "beat": THIRD_OF_AN_EPOCH,
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
    """A section's values over those of the preset it names.

    Raises:
        ValueError: There is no such preset.
    """
    if not isinstance(value, dict) or "preset" not in value:
        return value
    name = value["preset"]
    if name not in PRESETS:
        raise ValueError(f"preset {name} is unknown, expected {', '.join(PRESETS)}")
    return _over(PRESETS[name][section], {key: given for key, given in value.items() if key != "preset"})


def _over(base: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Values given, and those of the base where none is."""
    merged = dict(base)
    for key, value in given.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _over(base[key], value) if both and key not in SPANS else value
    return merged


SPANS = ("warmup", "decide_by", "beat", "one_hot_warmup")  # one value each, though written as mappings

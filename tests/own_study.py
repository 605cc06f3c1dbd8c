"""A study that is over in a second, for tests that run trials in a program of one's own."""

from __future__ import annotations

from typing import Any

from running import STUDY

from ofbnas.config import StudyConfig
from ofbnas.config.study_file import study_of

SHARE = "search.budget.gmacs_share"
SINGLE = [{"metric": "val_top1", "direction": "maximize"}]
# Not of the study, but of when and where the row was made.
OF_THE_RUN = ("seconds", "finished_at")


def tiny(**changes: Any) -> StudyConfig:
    """Three epochs of three steps, and one epoch of fine-tuning."""
    tree = STUDY | {
        "data": {"name": "digits", "shift": 1, "train_share": 0.15},
        "pretrain": {"epochs": 2, "lr": 5e-3},
        "search": STUDY["search"] | {"epochs": 3, "refine": {"candidates": 0}},
        "finetune": {"epochs": 1, "lr": 2e-3},
    }
    for name, value in changes.items():
        tree[name] = tree[name] | value if isinstance(value, dict) and name in tree else value
    return study_of(tree, "tiny")

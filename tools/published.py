"""Write the table of published results: python tools/published.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ofbnas.table.store import write_table

TARGET = Path(__file__).parent.parent / "studies" / "tables" / "published.parquet"
DEIT_T = "deit_tiny_patch16_224"
DEIT_S = "deit_small_patch16_224"
DEIT_B = "deit_base_patch16_224"
DISTILLED = "deit_base_distilled_patch16_224"
SWIN_T = "swin_tiny_patch4_window7_224"


class Network(NamedTuple):
    """One network of a method, as its source states it.

    Attributes:
        parent: timm's name of the parent; None if it was searched from scratch, or is not stated.
        top1: Accuracy on the validation images of ImageNet-1k, in percent.
        millions: Parameters, in millions.
        gmacs: Multiply-accumulates for one image, in units of 1e9.
        source: Where the numbers are from.
    """

    parent: str | None
    top1: float
    millions: float
    gmacs: float
    source: str


class Parent(NamedTuple):
    """A parent without any compression, at 224 pixels.

    Attributes:
        gmacs: Multiply-accumulates for one image, in units of 1e9.
        params: Number of parameters.
        top1: Accuracy as published, in percent.
    """

    gmacs: float
    params: int
    top1: float


PARENTS = {
    DEIT_T: Parent(1.3, 5_700_000, 72.2),
    DEIT_S: Parent(4.6, 22_100_000, 79.8),
    DEIT_B: Parent(17.6, 86_600_000, 81.8),
    DISTILLED: Parent(17.6, 87_300_000, 83.36),
    SWIN_T: Parent(4.5, 28_300_000, 81.2),
}

OFB = "OFB, arXiv 2403.15835, README of its code"
OFB_SWIN = "OFB, arXiv 2403.15835, comment in the README of its code"
VIT_SLIM = "ViT-Slim, arXiv 2201.00814, as listed by"
SAVIT = "SAViT, NeurIPS 2022"
ISOMORPHIC = "Isomorphic Pruning, ECCV 2024, README; distillation"
AUTOFORMER = "AutoFormer, ICCV 2021, abstract and tables; searched from scratch"

NETWORKS = {
    "OFB": [
        Network(None, 75.0, 4.4, 0.9, f"{OFB}: OFB-DeiT-A; no distillation"),
        Network(None, 76.1, 5.3, 1.1, f"{OFB}: OFB-DeiT-B; no distillation"),
        Network(None, 78.0, 8.0, 1.7, f"{OFB}: OFB-DeiT-C; no distillation"),
        Network(None, 80.3, 17.6, 3.6, f"{OFB}: OFB-DeiT-D; no distillation"),
        Network(DEIT_B, 81.7, 43.9, 8.7, f"{OFB}: OFB-DeiT-E; no distillation"),
    ],
    "OFB-Swin": [
        Network(None, 76.5, 6.1, 1.0, f"{OFB_SWIN}: OFB-Swin-A"),
        Network(None, 79.9, 16.4, 2.6, f"{OFB_SWIN}: OFB-Swin-B"),
        Network(None, 80.5, 18.9, 3.1, f"{OFB_SWIN}: OFB-Swin-C"),
    ],
    "ViT-Slim": [
        Network(DEIT_S, 79.5, 13.5, 2.8, f"{VIT_SLIM} XAI-Pruner, HiAP and DIMAP"),
        Network(DEIT_S, 79.9, 15.7, 3.1, f"{VIT_SLIM} XAI-Pruner, HiAP and DIMAP"),
        Network(DEIT_S, 80.6, 17.7, 3.7, f"{VIT_SLIM} XAI-Pruner, HiAP and DIMAP"),
        Network(DEIT_B, 82.4, 52.6, 10.6, f"{VIT_SLIM} SAViT"),
    ],
    "SAViT": [
        Network(DEIT_T, 70.72, 4.2, 0.9, f"{SAVIT}; 300 epochs of fine-tuning"),
        Network(DEIT_S, 80.11, 14.7, 3.1, f"{SAVIT}; 300 epochs of fine-tuning"),
        Network(DEIT_B, 81.66, 25.4, 5.3, f"{SAVIT}; 300 epochs of fine-tuning"),
        Network(DEIT_B, 82.54, 42.6, 8.8, f"{SAVIT}; 300 epochs of fine-tuning"),
        Network(DEIT_B, 82.75, 51.9, 10.6, f"{SAVIT}; 300 epochs of fine-tuning"),
    ],
    "SAViT, distilled": [
        Network(DISTILLED, 76.95, 6.6, 1.3, f"{SAVIT}; distillation"),
        Network(DISTILLED, 82.38, 20.6, 4.2, f"{SAVIT}; distillation"),
        Network(DISTILLED, 83.31, 33.6, 6.7, f"{SAVIT}; distillation"),
    ],
    "Isomorphic Pruning": [
        Network(DISTILLED, 72.6, 3.08, 0.62, ISOMORPHIC),
        Network(DISTILLED, 77.5, 5.74, 1.21, ISOMORPHIC),
        Network(DISTILLED, 81.13, 13.07, 2.61, ISOMORPHIC),
        Network(DISTILLED, 82.41, 20.69, 4.16, ISOMORPHIC),
    ],
    "AutoFormer": [
        Network(None, 74.7, 5.7, 1.3, AUTOFORMER),
        Network(None, 81.7, 22.9, 5.1, AUTOFORMER),
        Network(None, 82.4, 54.0, 11.0, AUTOFORMER),
    ],
    "dense": [
        Network(name, parent.top1, parent.params / 1e6, parent.gmacs, "DeiT and Swin papers")
        for name, parent in PARENTS.items()
    ],
}


def rows() -> pd.DataFrame:
    """The published results as rows of an architecture table; what a source omits is null."""
    records: list[dict[str, Any]] = []
    for method, networks in NETWORKS.items():
        for network in networks:
            record = {
                "study": method,
                "trial": len(records),
                "status": "complete",
                "model": network.parent or "not stated",
                "model_kwargs": "{}",
                "num_classes": 1000,
                "image_size": 224,
                "gmacs": network.gmacs,
                "params": round(network.millions * 1e6),
                "parent_gmacs": None,
                "parent_params": None,
                "parent_top1": None,
                "top1": network.top1,
                "dataset": "imagenet-1k",
                "source": network.source,
            }
            if network.parent is not None:
                parent = PARENTS[network.parent]
                record["parent_gmacs"] = parent.gmacs
                record["parent_params"] = parent.params
                record["parent_top1"] = parent.top1
            records.append(record)
    return pd.DataFrame(records)


if __name__ == "__main__":
    write_table(rows(), TARGET)

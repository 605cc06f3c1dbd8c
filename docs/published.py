"""Write the table of published results: python docs/published.py."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ofbnas.table import write_table

TARGET = Path(__file__).parent.parent / "studies" / "tables" / "published.parquet"
DEIT_T, DEIT_S, DEIT_B = (f"deit_{size}_patch16_224" for size in ("tiny", "small", "base"))
DISTILLED = "deit_base_distilled_patch16_224"
SWIN_T = "swin_tiny_patch4_window7_224"

# What a parent of timm has at 224 pixels: GMACs, parameters, top-1 as published.
PARENTS = {
    DEIT_T: (1.3, 5_700_000, 72.2),
    DEIT_S: (4.6, 22_100_000, 79.8),
    DEIT_B: (17.6, 86_600_000, 81.8),
    DISTILLED: (17.6, 87_300_000, 83.36),
    SWIN_T: (4.5, 28_300_000, 81.2),
}

# Method, parent (None: searched from scratch, or not stated), top-1, parameters in millions, GMACs, source.
ROWS = [
    ("OFB", None, 75.0, 4.4, 0.9, "OFB, arXiv 2403.15835, README of its code: OFB-DeiT-A; no distillation"),
    ("OFB", None, 76.1, 5.3, 1.1, "OFB, arXiv 2403.15835, README of its code: OFB-DeiT-B; no distillation"),
    ("OFB", None, 78.0, 8.0, 1.7, "OFB, arXiv 2403.15835, README of its code: OFB-DeiT-C; no distillation"),
    ("OFB", None, 80.3, 17.6, 3.6, "OFB, arXiv 2403.15835, README of its code: OFB-DeiT-D; no distillation"),
    ("OFB", DEIT_B, 81.7, 43.9, 8.7, "OFB, arXiv 2403.15835, README of its code: OFB-DeiT-E; no distillation"),
    ("OFB-Swin", None, 76.5, 6.1, 1.0, "OFB, arXiv 2403.15835, comment in the README of its code: OFB-Swin-A"),
    ("OFB-Swin", None, 79.9, 16.4, 2.6, "OFB, arXiv 2403.15835, comment in the README of its code: OFB-Swin-B"),
    ("OFB-Swin", None, 80.5, 18.9, 3.1, "OFB, arXiv 2403.15835, comment in the README of its code: OFB-Swin-C"),
    ("ViT-Slim", DEIT_S, 79.5, 13.5, 2.8, "ViT-Slim, arXiv 2201.00814, as listed by XAI-Pruner, HiAP and DIMAP"),
    ("ViT-Slim", DEIT_S, 79.9, 15.7, 3.1, "ViT-Slim, arXiv 2201.00814, as listed by XAI-Pruner, HiAP and DIMAP"),
    ("ViT-Slim", DEIT_S, 80.6, 17.7, 3.7, "ViT-Slim, arXiv 2201.00814, as listed by XAI-Pruner, HiAP and DIMAP"),
    ("ViT-Slim", DEIT_B, 82.4, 52.6, 10.6, "ViT-Slim, arXiv 2201.00814, as listed by SAViT"),
    ("SAViT", DEIT_T, 70.72, 4.2, 0.9, "SAViT, NeurIPS 2022; 300 epochs of fine-tuning"),
    ("SAViT", DEIT_S, 80.11, 14.7, 3.1, "SAViT, NeurIPS 2022; 300 epochs of fine-tuning"),
    ("SAViT", DEIT_B, 81.66, 25.4, 5.3, "SAViT, NeurIPS 2022; 300 epochs of fine-tuning"),
    ("SAViT", DEIT_B, 82.54, 42.6, 8.8, "SAViT, NeurIPS 2022; 300 epochs of fine-tuning"),
    ("SAViT", DEIT_B, 82.75, 51.9, 10.6, "SAViT, NeurIPS 2022; 300 epochs of fine-tuning"),
    ("SAViT, distilled", DISTILLED, 76.95, 6.6, 1.3, "SAViT, NeurIPS 2022; distillation"),
    ("SAViT, distilled", DISTILLED, 82.38, 20.6, 4.2, "SAViT, NeurIPS 2022; distillation"),
    ("SAViT, distilled", DISTILLED, 83.31, 33.6, 6.7, "SAViT, NeurIPS 2022; distillation"),
    ("Isomorphic Pruning", DISTILLED, 72.60, 3.08, 0.62, "Isomorphic Pruning, ECCV 2024, README; distillation"),
    ("Isomorphic Pruning", DISTILLED, 77.50, 5.74, 1.21, "Isomorphic Pruning, ECCV 2024, README; distillation"),
    ("Isomorphic Pruning", DISTILLED, 81.13, 13.07, 2.61, "Isomorphic Pruning, ECCV 2024, README; distillation"),
    ("Isomorphic Pruning", DISTILLED, 82.41, 20.69, 4.16, "Isomorphic Pruning, ECCV 2024, README; distillation"),
    ("AutoFormer", None, 74.7, 5.7, 1.3, "AutoFormer, ICCV 2021, abstract and tables; searched from scratch"),
    ("AutoFormer", None, 81.7, 22.9, 5.1, "AutoFormer, ICCV 2021, abstract and tables; searched from scratch"),
    ("AutoFormer", None, 82.4, 54.0, 11.0, "AutoFormer, ICCV 2021, abstract and tables; searched from scratch"),
]
ROWS += [
    ("dense", name, top1, params / 1e6, gmacs, "DeiT and Swin papers")
    for name, (gmacs, params, top1) in PARENTS.items()
]


def rows() -> pd.DataFrame:
    """The published rows with the columns of an architecture table; what a source does not state is null."""
    found = []
    for trial, (study, parent, top1, millions, gmacs, source) in enumerate(ROWS):
        known = PARENTS.get(parent) if parent else None
        found.append(
            {
                "study": study,
                "trial": trial,
                "status": "complete",
                "model": parent or "not stated",
                "model_kwargs": "{}",
                "num_classes": 1000,
                "image_size": 224,
                "gmacs": gmacs,
                "params": round(millions * 1e6),
                "parent_gmacs": known[0] if known else None,
                "parent_params": known[1] if known else None,
                "parent_top1": known[2] if known else None,
                "top1": top1,
                "dataset": "imagenet-1k",
                "source": source,
            }
        )
    return pd.DataFrame(found)


if __name__ == "__main__":
    write_table(rows(), TARGET)

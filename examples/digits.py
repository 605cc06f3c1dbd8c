"""What the examples search: a small Vision Transformer that was trained on scikit-learn's digits."""

from __future__ import annotations

import timm
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import ofbnas

BATCH_SIZE = 64


def loaders() -> tuple[DataLoader, DataLoader]:
    """Training and test images, [batch, 1, 8, 8], with their labels, [batch]."""
    digits = ofbnas.load_data("digits")
    train = TensorDataset(digits.train.images, digits.train.labels)
    test = TensorDataset(digits.test.images, digits.test.labels)
    return DataLoader(train, BATCH_SIZE, shuffle=True, drop_last=True), DataLoader(test, BATCH_SIZE)


def parent(train: DataLoader, epochs: int) -> nn.Module:
    """A trained model."""
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=8,
        patch_size=4,
        in_chans=1,
        num_classes=10,
        embed_dim=32,
        depth=2,
        num_heads=2,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        for images, labels in train:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
    return model.eval()


def report(run: ofbnas.SearchRun, parent: nn.Module, test: DataLoader) -> None:
    """Print what a search has found."""
    found = run.subnet()
    split = ofbnas.data_from(test, test, num_classes=10).test
    print(found.architecture.sizes)
    for name, model in {"parent": parent, "found": found.model}.items():
        count = sum(parameter.numel() for parameter in model.parameters())
        print(f"{name}: {count:,} parameters, top-1 {ofbnas.evaluate(model, split).top1:.2f} %")

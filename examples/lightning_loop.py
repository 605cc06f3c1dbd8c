"""A search under Lightning."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from digits import BATCH_SIZE, loaders, parent, report
from torch import Tensor

import ofbnas


class Search(lightning.LightningModule):
    """The network of a search, and how Lightning trains it."""

    def __init__(self, search: ofbnas.SearchRun) -> None:
        super().__init__()
        self.search = search
        self.model = search.model

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """The loss of a batch."""
        images, labels = batch
        return self.search.loss(self.model(images), labels)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Let the optimizer make its step; options are decided when it is time."""
        super().optimizer_step(*args, **kwargs)
        self.search.after_step()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """An optimizer that follows every shrink."""
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=2e-3)
        self.search.attach(optimizer)
        return optimizer


def main(epochs: int = 8, parent_epochs: int = 8) -> ofbnas.SearchRun:
    """Search for half of the multiply-accumulates."""
    train, test = loaders()
    model = parent(train, parent_epochs)
    config = ofbnas.SearchConfig(
        epochs=epochs, batch_size=BATCH_SIZE, budget={"gmacs_share": 0.5}, label_smoothing=0.0
    )
    search = ofbnas.SearchRun(model, train, config)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        gradient_clip_val=1.0,
        enable_checkpointing=False,
        logger=False,
    )
    trainer.fit(Search(search), train)
    report(search, model, test)
    return search


if __name__ == "__main__":
    main().subnet().save("found")

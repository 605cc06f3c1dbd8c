"""A search under the Trainer of Hugging Face transformers."""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from digits import BATCH_SIZE, loaders, parent, report
from transformers import Trainer, TrainerCallback, TrainingArguments

import ofbnas


class SearchTrainer(Trainer):
    """A Trainer whose loss is that of a search."""

    search: ofbnas.SearchRun

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The loss of a batch."""
        return self.search.loss(model(inputs["pixel_values"]), inputs["labels"])


class Decide(TrainerCallback):
    """Lets a search decide after each step of the optimizer."""

    def __init__(self, search: ofbnas.SearchRun) -> None:
        self.search = search

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Options are decided when it is time."""
        self.search.after_step()


def main(epochs: int = 8, parent_epochs: int = 8) -> ofbnas.SearchRun:
    """Search for half of the multiply-accumulates."""
    train, test = loaders()
    model = parent(train, parent_epochs)
    config = ofbnas.SearchConfig(
        epochs=epochs, batch_size=BATCH_SIZE, budget={"gmacs_share": 0.5}, label_smoothing=0.0
    )
    search = ofbnas.SearchRun(model, train, config)
    optimizer = torch.optim.AdamW(search.model.parameters(), lr=2e-3)
    search.attach(optimizer)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=epochs,
            per_device_train_batch_size=BATCH_SIZE,
            dataloader_drop_last=True,
            remove_unused_columns=False,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
        )
        images = [{"pixel_values": image, "labels": label} for image, label in train.dataset]
        trainer = SearchTrainer(
            search.model,
            arguments,
            train_dataset=images,
            optimizers=(optimizer, None),
            callbacks=[Decide(search)],
        )
        trainer.search = search
        trainer.train()
    report(search, model, test)
    return search


if __name__ == "__main__":
    main().subnet().save("found")

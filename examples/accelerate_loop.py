"""A search under Hugging Face Accelerate, with gradients that are accumulated over two batches."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from digits import BATCH_SIZE, loaders, parent, report

import ofbnas

PARTS = 2  # batches to one step of the optimizer


def main(epochs: int = 8, parent_epochs: int = 8) -> ofbnas.SearchRun:
    """Search for half of the multiply-accumulates."""
    accelerator = Accelerator(gradient_accumulation_steps=PARTS, cpu=True)
    train, test = loaders()
    model = parent(train, parent_epochs).to(accelerator.device)
    config = ofbnas.SearchConfig(
        epochs=epochs, batch_size=BATCH_SIZE, budget={"gmacs_share": 0.5}, label_smoothing=0.0
    )
    num_steps = epochs * -(-len(train) // PARTS)
    search = ofbnas.SearchRun(model, train, config, num_steps=num_steps)

    optimizer = torch.optim.AdamW(search.model.parameters(), lr=2e-3)
    network, optimizer, batches = accelerator.prepare(search.model, optimizer, train)
    search.attach(optimizer)  # it follows every shrink, inside of Accelerate's wrapper
    for _ in range(epochs):
        network.train()
        for images, labels in batches:
            with accelerator.accumulate(network):
                loss = search.loss(network(images), labels)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(network.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
                if accelerator.sync_gradients:
                    search.after_step()
    report(search, model, test)
    return search


if __name__ == "__main__":
    main().subnet().save("found")

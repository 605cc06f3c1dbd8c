"""A search in a plain loop of torch, with an optimizer and a schedule of one's own."""

from __future__ import annotations

import torch
from digits import BATCH_SIZE, loaders, parent, report

import ofbnas


def main(epochs: int = 8, parent_epochs: int = 8) -> ofbnas.SearchRun:
    """Search for half of the multiply-accumulates."""
    train, test = loaders()
    model = parent(train, parent_epochs)
    config = ofbnas.SearchConfig(
        epochs=epochs, batch_size=BATCH_SIZE, budget={"gmacs_share": 0.5}, label_smoothing=0.0
    )
    search = ofbnas.SearchRun(model, train, config)

    optimizer = torch.optim.AdamW(search.model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, search.num_steps)
    search.attach(optimizer)  # it follows every shrink
    for _ in range(epochs):
        search.model.train()
        for images, labels in train:
            optimizer.zero_grad()
            loss = search.loss(search.model(images), labels)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(search.model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            search.after_step()  # options are decided when it is time
    report(search, model, test)
    return search


if __name__ == "__main__":
    main().subnet().save("found")

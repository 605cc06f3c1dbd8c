"""A search step beside a dense training step: time and saved activations, as ratios measured in one run.

    python benchmarks/step.py --model deit_small_patch16_224 --batch 16
    python benchmarks/step.py --model deit_base_patch16_224 --batch 128 --bf16      # where there is a GPU

Three steps are taken in turn: dense training with the same optimizer; a search step with everything alive; a search
step after half of the multiply-accumulates were shrunk away. --no-pmim leaves masked image modelling out.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Annotated

import timm
import torch
import typer
from rich import print
from torch import nn

from ofbnas.axes import axes, input_size
from ofbnas.config import Length, SearchConfig, TrainConfig
from ofbnas.data import SmallData, SmallSplit
from ofbnas.decide import best_choice
from ofbnas.recipe import Descent, autocast, grad_scaler, weights_optimizer
from ofbnas.searcher import Searcher


def main(
    model: Annotated[str, typer.Option(help="timm's name.")] = "deit_tiny_patch16_224",
    batch: Annotated[int, typer.Option(help="Images per step.")] = 16,
    rounds: Annotated[int, typer.Option(help="Steps of each kind that count.")] = 10,
    threads: Annotated[int, typer.Option(help="Threads on a CPU.")] = 2,
    pmim: Annotated[bool, typer.Option(help="With masked image modelling.")] = True,
    bf16: Annotated[bool, typer.Option("--bf16", help="Under bfloat16 autocast.")] = False,
    compiled: Annotated[bool, typer.Option("--compile", help="All three compiled.")] = False,
) -> None:
    """Measure the three steps and print their ratios."""
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    dense = timm.create_model(model).to(device)
    split = SmallSplit(torch.randn(batch, *input_size(dense)), torch.randint(0, 1000, (batch,))).to(device)
    recipe = {"epochs": 10**6, "batch_size": batch, "amp": "bfloat16" if bf16 else None, "compile": compiled}
    config = SearchConfig(**recipe, budget={"gmacs_share": 0.5}, pmim={"weight": 1.0 if pmim else 0.0})
    plain, criterion = TrainConfig(**recipe), nn.CrossEntropyLoss(label_smoothing=0.1)

    def searcher() -> Searcher:
        made = Searcher(dense, SmallData(split, split, split, 1000), config, axes(dense), seed=0)
        made.learner.supernet.train()
        return made

    whole, half = searcher(), searcher()
    half.learner.decide(best_choice(half.learner.supernet, half.cost, half.window))
    dense.train()
    forward = torch.compile(dense) if compiled else dense
    descent = Descent(plain, Length(10**6, 10**6), grad_scaler(plain, split.images.device))
    descent.add(weights_optimizer(dense, plain), plain)

    def dense_step() -> None:
        descent.begin(1)
        with autocast(plain, split.images.device):
            loss = criterion(forward(split.images), split.labels)
        descent.backward(loss)
        descent.end()

    def search_step(made: Searcher) -> Callable[[], None]:
        def step() -> None:
            made.step([(split.images, split.labels)], 1)

        return step

    steps = {"dense": dense_step, "search": search_step(whole), "search, half shrunk": search_step(half)}
    seconds = interleaved(steps, rounds, device)
    saved = {name: saved_bytes(step) for name, step in steps.items()}
    how = f"{', bf16' if bf16 else ''}{', compiled' if compiled else ''}"
    print(f"{model}, batch {batch}, {device}, torch {torch.__version__}{how}")
    for name in steps:
        print(
            f"{name:20} {1000 * seconds[name]:8.1f} ms  ratio {seconds[name] / seconds['dense']:.3f}   "
            f"saved {saved[name] / 1e6:8.1f} MB  ratio {saved[name] / saved['dense']:.3f}"
        )


def interleaved(steps: dict[str, Callable[[], None]], rounds: int, device: str) -> dict[str, float]:
    """Median seconds of each step, taken in turn after two that do not count."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for index in range(rounds + 2):
        for name, step in steps.items():
            if device == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter()
            step()
            if device == "cuda":
                torch.cuda.synchronize()
            if index >= 2:
                taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in taken.items()}


def saved_bytes(step: Callable[[], None]) -> int:
    """Bytes of distinct tensors that a step keeps for its backward pass."""
    storages: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    return sum(storages.values())


if __name__ == "__main__":
    typer.run(main)

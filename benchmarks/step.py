"""A search step compared with a dense training step: time and saved activations, as ratios.

    python benchmarks/step.py --model deit_small_patch16_224 --batch 16
    python benchmarks/step.py --model deit_base_patch16_224 --batch 128 --bf16    # on a GPU

Three kinds of steps are measured in turn: dense training with the same optimizer; a search step
before anything is removed; and a search step after half of the multiply-accumulates were removed.
--no-pmim leaves out masked image modelling.
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

from ofbnas.config import Length, SearchConfig, TrainConfig
from ofbnas.models.axes import axes, input_size
from ofbnas.nas.run import SearchRun
from ofbnas.training.data import SmallData, SmallSplit
from ofbnas.training.recipe import Optimizers, autocast, grad_scaler, weights_optimizer

WARM_UP_ROUNDS = 2  # allocators fill up, and compilation takes place


def main(
    model: Annotated[str, typer.Option(help="timm's name.")] = "deit_tiny_patch16_224",
    batch: Annotated[int, typer.Option(help="Images per step.")] = 16,
    rounds: Annotated[int, typer.Option(help="Measured steps of each kind.")] = 10,
    threads: Annotated[int, typer.Option(help="Threads on a CPU.")] = 2,
    pmim: Annotated[bool, typer.Option(help="With masked image modelling.")] = True,
    bf16: Annotated[bool, typer.Option("--bf16", help="Under bfloat16 autocast.")] = False,
    compiled: Annotated[bool, typer.Option("--compile", help="Compile all three.")] = False,
) -> None:
    """Measure the three steps and print their ratios."""
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    dense = timm.create_model(model).to(device)
    images = torch.randn(batch, *input_size(dense))
    labels = torch.randint(0, 1000, (batch,))
    split = SmallSplit(images, labels).to(device)
    recipe = {
        "epochs": 10**6,
        "batch_size": batch,
        "amp": "bfloat16" if bf16 else None,
        "compile": compiled,
    }
    pmim_weight = 1.0 if pmim else 0.0
    config = SearchConfig(**recipe, budget={"gmacs_share": 0.5}, pmim={"weight": pmim_weight})

    whole = search_run(dense, split, config)
    half = search_run(dense, split, config)
    half.network.keep_options(half.constraint.best_choice(half.supernet))
    steps = {
        "dense": dense_step(dense, split, TrainConfig(**recipe)),
        "search": search_step(whole, split),
        "search, half shrunk": search_step(half, split),
    }
    seconds = interleaved(steps, rounds, device)
    saved = {name: saved_bytes(step) for name, step in steps.items()}

    options = [name for name, on in {"bf16": bf16, "compiled": compiled}.items() if on]
    title = [model, f"batch {batch}", device, f"torch {torch.__version__}", *options]
    print(", ".join(title))
    for name in steps:
        slower = seconds[name] / seconds["dense"]
        larger = saved[name] / saved["dense"]
        print(
            f"{name:20} {1000 * seconds[name]:8.1f} ms  ratio {slower:.3f}   "
            f"saved {saved[name] / 1e6:8.1f} MB  ratio {larger:.3f}"
        )


def search_run(dense: nn.Module, split: SmallSplit, config: SearchConfig) -> SearchRun:
    """A search of a model that is ready for its first step."""
    run = SearchRun(dense, SmallData(split, split, split, 1000), config, axes(dense), seed=0)
    run.begin()
    return run


def search_step(run: SearchRun, split: SmallSplit) -> Callable[[], None]:
    """A function that makes one step of a search."""

    def step() -> None:
        run.step([(split.images, split.labels)], 1)

    return step


def dense_step(dense: nn.Module, split: SmallSplit, config: TrainConfig) -> Callable[[], None]:
    """A function that makes one step of dense training."""
    dense.train()
    device = split.images.device
    forward = torch.compile(dense) if config.compile else dense
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    optimizers = Optimizers(config, Length(10**6, 10**6), grad_scaler(config, device))
    optimizers.add(weights_optimizer(dense, config), config)

    def step() -> None:
        optimizers.begin(1)
        with autocast(config, device):
            loss = criterion(forward(split.images), split.labels)
        optimizers.backward(loss)
        optimizers.apply()

    return step


def interleaved(steps: dict[str, Callable[[], None]], rounds: int, device: str) -> dict[str, float]:
    """Median seconds of each step.

    Steps are made in turn, so that a machine that slows down slows all of them.
    """
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for index in range(WARM_UP_ROUNDS + rounds):
        for name, step in steps.items():
            seconds = seconds_of(step, device)
            if index >= WARM_UP_ROUNDS:
                taken[name].append(seconds)
    return {name: statistics.median(times) for name, times in taken.items()}


def seconds_of(step: Callable[[], None], device: str) -> float:
    """Seconds of one step. A GPU works asynchronously, so it is waited for before and after."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def saved_bytes(step: Callable[[], None]) -> int:
    """Bytes of the tensors that a step keeps for its backward pass, shared storages once."""
    storages: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    def unpack(tensor: torch.Tensor) -> torch.Tensor:
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        step()
    return sum(storages.values())


if __name__ == "__main__":
    typer.run(main)

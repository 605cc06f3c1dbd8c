"""A search step compared with a dense training step: time and saved activations, as ratios.

    python benchmarks/step.py --model deit_small_patch16_224 --batch 16
    python benchmarks/step.py --model deit_base_patch16_224 --batch 128 --bf16    # on a GPU

Three kinds of steps are measured in turn: dense training with the same optimizer; a search step
before anything is removed; and a search step after half of the multiply-accumulates were removed.
--no-pmim leaves out masked image modelling.
"""

from __future__ import annotations

import copy
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
from ofbnas.nas.run import StageRun
from ofbnas.nas.stage import Stage
from ofbnas.training.data import SmallData, SmallSplit
from ofbnas.training.recipe import Optimizers, autocast, grad_scaler, weights_optimizer

Step = Callable[[], None]
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
    split = random_images(dense, batch, device)
    makers = step_makers(dense, split, pmim=pmim, bf16=bf16, compiled=compiled)
    steps = {name: make() for name, make in makers.items()}
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


def random_images(model: nn.Module, count: int, device: str) -> SmallSplit:
    """Random images of a model's size, with random labels."""
    images = torch.randn(count, *input_size(model), device=device)
    labels = torch.randint(0, model.num_classes, (count,), device=device)
    return SmallSplit(images, labels)


def step_makers(
    dense: nn.Module, split: SmallSplit, *, pmim: bool, bf16: bool, compiled: bool
) -> dict[str, Callable[[], Step]]:
    """For each kind of step, a function that prepares it, with a copy of the model of its own."""
    recipe = {
        "epochs": 10**6,
        "batch_size": len(split),
        "amp": "bfloat16" if bf16 else None,
        "compile": compiled,
    }
    pmim_weight = 1.0 if pmim else 0.0
    config = SearchConfig(**recipe, budget={"gmacs_share": 0.5}, pmim={"weight": pmim_weight})

    def half_shrunk() -> Step:
        run = search_run(dense, split, config)
        run.network.keep_options(run.constraint.best_choice(run.supernet))
        return search_step(run, split)

    return {
        "dense": lambda: dense_step(copy.deepcopy(dense), split, TrainConfig(**recipe)),
        "search": lambda: search_step(search_run(dense, split, config), split),
        "search, half shrunk": half_shrunk,
    }


def search_run(dense: nn.Module, split: SmallSplit, config: SearchConfig) -> StageRun:
    """A search of a model that is ready for its first step."""
    data = SmallData(split, split, split, dense.num_classes)
    run = StageRun(Stage(dense, data, config, axes(dense), seed=0))
    run.begin()
    return run


def search_step(run: StageRun, split: SmallSplit) -> Step:
    """A function that makes one step of a search."""

    def step() -> None:
        run.step([(split.images, split.labels)], 1)

    return step


def dense_step(dense: nn.Module, split: SmallSplit, config: TrainConfig) -> Step:
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


def interleaved(steps: dict[str, Step], rounds: int, device: str) -> dict[str, float]:
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


def seconds_of(step: Step, device: str) -> float:
    """Seconds of one step. A GPU works asynchronously, so it is waited for before and after."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def saved_bytes(step: Step) -> int:
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

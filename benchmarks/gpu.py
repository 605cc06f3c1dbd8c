"""What only a GPU can tell: steps, synchronisations, speed of a found network, a compression.

    python benchmarks/gpu.py                       # one GPU, under 9 minutes
    python benchmarks/gpu.py --only compiled       # some of the parts
    python benchmarks/gpu.py --small               # tiny models on the CPU, in seconds: does it run?

It needs neither Ray nor Optuna, and nothing is downloaded: weights and images are random. Each
number is a row of a Parquet file and is written at once, so a run that is cut off keeps what it has.
"""

from __future__ import annotations

import gc
import json
import platform
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import typer
from gpu_models import SMALL, WHOLE, Model, Setting
from step import WARM_UP_ROUNDS, Step, interleaved, random_images, step_makers
from torch import nn

from ofbnas.config import LatencyConfig, SearchConfig
from ofbnas.errors import one_line
from ofbnas.nas.search import search
from ofbnas.study.provenance import git_commit, versions
from ofbnas.study.trial import device_name
from ofbnas.table import parquet
from ofbnas.training.data import SmallData
from ofbnas.training.events import Callback
from ofbnas.training.latency import latency

SECONDS = 8.5 * 60  # after which a run ends, whatever it is at
SYNC = "called a synchronizing"  # torch's warning, in its sync debug mode


class Report:
    """Prints rows, and keeps them in a Parquet file behind those that it has."""

    def __init__(self, file: Path, device: str) -> None:
        self.file = file
        self.rows: list[dict[str, Any]] = []
        if file.exists():
            self.rows = pq.read_table(file).to_pylist()
        self.common = {
            "machine": platform.platform(),
            "device": device_name(torch.device(device)),
            "versions": json.dumps(versions()),
            "git_commit": git_commit(),
        }

    def add(self, what: str, model: str, mode: str, value: float, unit: str) -> None:
        """Add a row."""
        print(f"{what:44} {model:30} {mode:40} {value:10.4g} {unit}", flush=True)
        measured = {"what": what, "model": model, "mode": mode, "value": float(value), "unit": unit}
        self.rows.append({**self.common, "finished_at": datetime.now(UTC), **measured})
        parquet.write(
            pa.Table.from_pandas(pd.DataFrame(self.rows), preserve_index=False), self.file
        )


def steps(setting: Setting, report: Report, *, compiled: bool = False) -> None:
    """Time and memory of training, search and half-shrunk search steps."""
    mode = f"bfloat16 autocast, {'compiled' if compiled else 'eager'}"
    for model in setting.models:
        _steps_of(model, setting, report, compiled=compiled, mode=f"{mode}, batch {model.batch}")
        _forget()


def _steps_of(model: Model, setting: Setting, report: Report, *, compiled: bool, mode: str) -> None:
    """The same for one model."""
    made, held = _steps_and_memory(model, setting.device, compiled=compiled)
    seconds = interleaved(made, setting.rounds, setting.device)
    for kind, taken in seconds.items():
        report.add(f"step, {kind}", model.name, mode, 1000 * taken, "ms")
    for kind in list(seconds)[1:]:
        ratio = seconds[kind] / seconds["dense"]
        report.add(f"step, {kind} / dense", model.name, mode, ratio, "ratio")
    if setting.device == "cpu":
        return
    for kind, step in made.items():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        passing = torch.cuda.max_memory_allocated() - before
        report.add(f"peak memory, {kind}", model.name, mode, (held[kind] + passing) / 1e9, "GB")


def _steps_and_memory(
    model: Model, device: str, *, compiled: bool
) -> tuple[dict[str, Step], dict[str, int]]:
    """Steps that are warm, and the bytes that each holds on the GPU between two of them."""
    dense = model.made(device)
    split = random_images(dense, model.batch, device)
    made: dict[str, Step] = {}
    held: dict[str, int] = {}
    for kind, make in step_makers(dense, split, pmim=True, bf16=True, compiled=compiled).items():
        before = torch.cuda.memory_allocated()
        made[kind] = make()
        for _ in range(WARM_UP_ROUNDS):
            made[kind]()
        held[kind] = torch.cuda.memory_allocated() - before
    return made, held


def syncs(setting: Setting, report: Report) -> None:
    """Calls in a step that make the CPU wait for the GPU: there are to be none."""
    if setting.device == "cpu":
        print("syncs: left out, as only a GPU has them")
        return
    for model in setting.models:
        made, _ = _steps_and_memory(model, setting.device, compiled=False)
        for kind, step in made.items():
            torch.cuda.synchronize()
            with warnings.catch_warnings(record=True) as told, _sync_warnings():
                for _ in range(setting.rounds):
                    step()
            waits = [f"{one.filename}:{one.lineno}" for one in told if SYNC in str(one.message)]
            per_step = len(waits) / setting.rounds
            report.add(f"waits for the GPU, {kind}", model.name, "eager", per_step, "per step")
            for place in sorted(set(waits)):
                print(f"    at {place}")
        _forget()


@contextmanager
def _sync_warnings() -> Iterator[None]:
    """Let torch warn at each call that waits for the GPU."""
    warnings.simplefilter("always")
    torch.cuda.set_sync_debug_mode("warn")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def speed(setting: Setting, report: Report, *, compiled: bool = False) -> None:
    """Images per second of a found network and its parent."""
    parent = setting.timed.made(setting.device).eval()
    found = _compressed(setting.timed, parent, setting, num_images=min(setting.batch_sizes[-1], 32))
    _speed_of(found, parent, setting.timed, setting, report, compiled=compiled)


def _speed_of(
    found: nn.Module,
    parent: nn.Module,
    model: Model,
    setting: Setting,
    report: Report,
    *,
    compiled: bool = False,
) -> None:
    """The same for one network."""
    # Compilation takes long, and is for those who want the highest speed.
    for precision in ("bfloat16",) if compiled else ("float32", "bfloat16"):
        for batch_size in setting.batch_sizes:
            config = LatencyConfig(
                batch_size=batch_size,
                batches=setting.batches,
                precision=precision,
                compile=compiled,
            )
            columns = latency(found, parent, config)
            mode = f"{precision}, {'compiled' if compiled else 'eager'}, batch {batch_size}"
            for what, column in (("found", "latency_ms"), ("parent", "parent_latency_ms")):
                per_second = 1000 * batch_size / columns[column]
                report.add(f"speed, {what}", model.name, mode, per_second, "images/s")
            ratio = columns["parent_latency_ms"] / columns["latency_ms"]
            report.add("speed, found / parent", model.name, mode, ratio, "ratio")


class _Laps(Callback):
    """Reports the seconds of each step of a search without training."""

    def __init__(self, add: Callable[[str, float], None]) -> None:
        self.add = add
        self.started = time.perf_counter()

    def on_epoch(self, phase: str, epoch: int, epochs: int, losses: Mapping[str, float]) -> None:
        """Report a step."""
        seconds = time.perf_counter() - self.started
        self.add(f"compression to 50 %, step {epoch} of {epochs}", seconds)
        self.started = time.perf_counter()


def compress(setting: Setting, report: Report) -> None:
    """Time of a training-free compression to half of the multiply-accumulates."""
    model = setting.compressed
    parent = model.made(setting.device).eval()
    images = f"{setting.scoring_images}+{setting.compensation_images} random images, random weights"
    mode = f"TF32, {images}"

    def add(what: str, seconds: float) -> None:
        report.add(what, model.name, mode, seconds, "s")

    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    started = time.perf_counter()
    try:
        found = _compressed(model, parent, setting, callbacks=[_Laps(add)])
    finally:
        torch.set_float32_matmul_precision(precision)
    add("compression to 50 %", time.perf_counter() - started)
    _speed_of(found, parent, model, setting, report)


def _compressed(
    model: Model,
    parent: nn.Module,
    setting: Setting,
    num_images: int | None = None,
    callbacks: tuple[Callback, ...] | list[Callback] = (),
) -> nn.Module:
    """A subnet with half of the multiply-accumulates, found without training.

    Args:
        model: The parent.
        parent: Its network.
        setting: By default has the numbers of images.
        num_images: A few where only the sizes matter.
        callbacks: Called after each step.
    """
    scoring = num_images or setting.scoring_images
    compensation = num_images or setting.compensation_images
    split = random_images(parent, max(scoring, compensation), setting.device)
    data = SmallData(split, split, split, parent.num_classes)
    config = SearchConfig(
        epochs=0,
        budget={"gmacs_share": 0.5},
        training_free={"scoring_images": scoring},
        compensation={"images": compensation},
    )
    found = search(
        parent, data, config, name=model.name, kwargs=dict(model.kwargs), callbacks=callbacks
    )
    return found.subnet.model


def compiled(setting: Setting, report: Report) -> None:
    """The steps and the speed under torch.compile, which takes minutes to compile."""
    steps(setting, report, compiled=True)
    speed(setting, report, compiled=True)


def _forget() -> None:
    """Give back what the last model held."""
    gc.collect()
    torch.compiler.reset()
    torch.cuda.empty_cache()


PARTS: dict[str, Callable[[Setting, Report], None]] = {
    "steps": steps,
    "syncs": syncs,
    "speed": speed,
    "compress": compress,
    "compiled": compiled,
}


class OutOfTime(BaseException):
    """The run has had its time; no `except Exception`, such as a compiler's, is to catch it."""


def main(
    only: Annotated[
        str, typer.Option(help=f"Parts, separated by commas, of {', '.join(PARTS)}.")
    ] = "",
    small: Annotated[
        bool, typer.Option("--small", help="Tiny models on the CPU; by default nothing compiled.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Parquet file that rows are added to.")] = Path(
        "runs/gpu.parquet"
    ),
) -> None:
    """Measure the parts in turn; one that fails does not keep the others from running."""
    setting = SMALL if small else WHOLE
    if setting.device == "cuda" and not torch.cuda.is_available():
        raise typer.BadParameter("there is no GPU here; give --small to try it on the CPU")
    chosen = (
        only.split(",") if only else [name for name in PARTS if not small or name != "compiled"]
    )
    unknown = [name for name in chosen if name not in PARTS]
    if unknown:
        raise typer.BadParameter(
            f"--only has {', '.join(unknown)}, expected some of {', '.join(PARTS)}"
        )

    def stop(number: int, frame: Any) -> None:
        raise OutOfTime

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    report = Report(out, setting.device)
    failed = []
    for name in chosen:
        try:
            PARTS[name](setting, report)
        except OutOfTime:
            print(f"{name}: cut off after {SECONDS:g} s; --only {name} measures it alone")
            break
        except RuntimeError as error:  # of CUDA, or of the compiler
            print(f"{name}: {one_line(error)}")
            failed.append(name)
        _forget()
    print(f"{len(report.rows)} rows are in {out}")
    if failed:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)

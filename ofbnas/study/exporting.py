"""Export of a table's network to a file, which is compared with the network on its test images."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from torch import Tensor, nn

from ofbnas.errors import ExportError
from ofbnas.files import durable
from ofbnas.models.axes import input_size
from ofbnas.study.networks import Network
from ofbnas.training.data import Split, load_data, load_test
from ofbnas.training.data.images import ImageSplit
from ofbnas.training.data.small import CLASS_NAMES
from ofbnas.training.data.splits import classes_of
from ofbnas.training.evaluation import evaluate
from ofbnas.training.exported import Preprocessing, export, load_exported
from ofbnas.training.features import has_classifier, knn_top1
from ofbnas.training.latency import cpu_threads, in_turns, warm_up
from ofbnas.training.quantization import Int8, quantize

TOLERANCE = 1e-4  # between outputs, as a share of the largest one where that is above 1
MOST_POINTS = 0.5  # of accuracy between a network and its export
COMPARED = 256  # images whose outputs are compared
TIMED = 30  # batches of one image
WARM_UP = 5


@dataclass(frozen=True)
class Images:
    """What an export needs of a network's images.

    Attributes:
        test: Test split.
        val: Validation split; None if it is not needed.
        preprocessing: How an image is prepared.
    """

    test: Split
    val: Split | None
    preprocessing: Preprocessing


@dataclass(frozen=True)
class Measured:
    """A network beside others.

    Attributes:
        network: "torch", or the kind of its file.
        quality: Columns of the table on test images: accuracy, or that of nearest neighbours.
        difference: Largest difference between its outputs and the network's in torch.
        latency_ms: Median time of an image on one thread of this CPU, milliseconds.
        megabytes: Size of its file; None in torch.
    """

    network: str
    quality: Mapping[str, float]
    difference: float
    latency_ms: float
    megabytes: float | None

    def record(self) -> dict[str, Any]:
        """As a line of a printed table."""
        return {
            "network": self.network,
            **self.quality,
            "difference": self.difference,
            "latency_ms": self.latency_ms,
            "megabytes": self.megabytes,
        }


def images_of(settings: Mapping[str, Any], model: nn.Module, *, val: bool) -> Images:
    """The images of a network.

    Args:
        settings: Arguments of `load_data`.
        model: The network.
        val: Whether validation images are needed whatever the network is.

    Raises:
        InputError: They cannot be read.
    """
    name = settings["name"]
    if settings.get("mean") is None or val or not has_classifier(model):
        data = load_data(**settings)
        test, val_split, mean, std = data.test, data.val, data.mean, data.std
    else:
        test, val_split = load_test(**settings), None
        mean, std = settings["mean"], settings["std"]
    names = CLASS_NAMES.get(name)
    if isinstance(test, ImageSplit):
        numbers = classes_of(test.dataset)
        names = tuple(sorted(numbers, key=numbers.__getitem__)) or None
    preprocessing = Preprocessing(
        input_size=input_size(model),
        mean=tuple(mean),
        std=tuple(std),
        crop_pct=settings.get("crop_pct", 1.0),  # small images are not resized
        interpolation=settings.get("interpolation", "bilinear"),
        class_names=names if has_classifier(model) else None,
    )
    return Images(test, val_split, preprocessing)


def export_network(
    network: Network, images: Images, file: Path, int8: Int8 | None = None
) -> list[Measured]:
    """Write a network to a file once it has been compared with the network.

    Args:
        network: The network.
        images: Its images.
        file: The file to write: .onnx or .pt2.
        int8: How to make a network of 8-bit integers; None for one in float32.

    Returns:
        The network in torch, the exported one, and the one of integers if it was asked for.

    Raises:
        InputError: A package is missing, or the network is too large for the format.
        ExportError: It cannot be exported, or the exported network computes something else.
    """
    model = network.subnet.model.cpu().eval().requires_grad_(False)
    about = {
        "arch_id": str(network.row.arch_id),
        "parent": network.row.model,
        "dataset": json.dumps(network.row.dataset),
    }
    with TemporaryDirectory() as folder:
        exported = Path(folder, "float").with_suffix(file.suffix)
        exported.write_bytes(export(model, file.suffix, images.preprocessing, about))
        files = {file.suffix.removeprefix("."): exported}
        if int8 is not None:
            quantized = Path(folder, "int8.onnx")
            quantize(exported, quantized, int8, images.val)
            files[f"onnx int8 {int8}"] = quantized
        measured = _measured(model, files, images)
        _check(*measured[:2])
        *_, result = files.values()
        durable.write(file, result.read_bytes())
    return measured


@torch.no_grad()
def _measured(model: nn.Module, files: Mapping[str, Path], images: Images) -> list[Measured]:
    """A network in torch, and each of its files by its kind."""
    num_classes = cast(int, model.num_classes)

    def networks() -> dict[str, nn.Module]:
        loaded = {kind: load_exported(file, num_classes) for kind, file in files.items()}
        return {"torch": model, **loaded}

    batch, _ = next(iter(images.test.batches(COMPARED)))
    expected = model(batch)

    # With more threads, a busy machine would delay torch much longer than ONNX Runtime, which has
    # its threads from when a file is loaded.
    with cpu_threads(1):
        calls = [_call(each, batch[:1]) for each in networks().values()]
        for call in calls:
            warm_up(call, WARM_UP)
        times = in_turns(calls, TIMED)

    measured = []
    for (kind, each), milliseconds in zip(networks().items(), times, strict=True):
        size = files[kind].stat().st_size / 1e6 if kind in files else None
        difference = float((each(batch) - expected).abs().max() / expected.abs().max().clamp(min=1))
        quality = _quality(each, images)
        measured.append(Measured(kind, quality, difference, statistics.median(milliseconds), size))
    return measured


def _call(network: nn.Module, image: Tensor) -> Callable[[], object]:
    """A call that can be timed."""
    return lambda: network(image)


def _quality(network: nn.Module, images: Images) -> dict[str, float]:
    """A network's accuracy on test images, by columns of the table."""
    if has_classifier(network):
        accuracy = evaluate(network, images.test)
        return {"top1": accuracy.top1, "top5": accuracy.top5}
    assert images.val is not None
    return {"knn_top1": knn_top1(network, images.val, images.test)}


def _check(network: Measured, exported: Measured) -> None:
    """Check that an exported network in float32 is the network.

    Raises:
        ExportError: It is not.
    """
    name, expected = next(iter(network.quality.items()))
    # Written so that NaN does not pass.
    if not exported.difference <= TOLERANCE:
        raise ExportError(
            f"the exported network's outputs differ from the network's by {exported.difference:.2g}"
            f", at most {TOLERANCE:g} was expected; nothing was written"
        )
    if not abs(exported.quality[name] - expected) <= MOST_POINTS:
        raise ExportError(
            f"the exported network's {name} is {exported.quality[name]:.2f}, the network's is "
            f"{expected:.2f}; nothing was written"
        )

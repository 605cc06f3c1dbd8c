"""A network on ONNX Runtime, and the ONNX model that it runs."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ofbnas.errors import InputError

NEEDED = ("onnx", "onnxscript", "onnxruntime")
TimedNetwork = Callable[[], object]  # runs one batch, and returns when the outputs are there


def check_onnx() -> None:
    """Check that all that ONNX Runtime needs is installed.

    Raises:
        InputError: Something is missing.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"ONNX needs {', '.join(missing)}, not installed here; "
            "install them with pip install 'ofbnas[export]'"
        )


def on_onnx_runtime(model: nn.Module, images: Tensor, threads: int | None) -> TimedNetwork:
    """A network exported to ONNX, on the CPU.

    Args:
        model: In evaluation mode, on the CPU, in float32.
        images: A batch, [batch, channels, height, width].
        threads: Number of threads; None for ONNX Runtime's own choice.

    Raises:
        InputError: ONNX Runtime is not installed, or the device or data type is another.
    """
    check_onnx()
    if images.device.type != "cpu" or images.dtype != torch.float32:
        raise InputError(
            f"the runtime onnx is timed on a CPU in float32, not on {images.device} in "
            f"{str(images.dtype).removeprefix('torch.')}; choose these, or the runtime torch"
        )
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0  # 0 leaves the choice to it
    session = onnxruntime.InferenceSession(
        to_onnx(model, images), options, providers=["CPUExecutionProvider"]
    )
    inputs = {session.get_inputs()[0].name: images.numpy()}
    return lambda: session.run(None, inputs)


def to_onnx(model: nn.Module, images: Tensor, metadata: Mapping[str, str] | None = None) -> bytes:
    """The ONNX model of a network, for batches of any size: "images" in, "outputs" out.

    Args:
        model: In evaluation mode, on the CPU.
        images: A batch, [batch, channels, height, width].
        metadata: Name to text, kept in the file.

    Raises:
        torch.onnx.OnnxExporterError: The network cannot be exported.
    """
    # An example of a single image would fix the batch at 1.
    example = images[:2] if len(images) > 1 else images.repeat(2, 1, 1, 1)
    batch = torch.export.Dim("batch")
    with _quiet(), _unfused(model):
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            dynamic_shapes=({0: batch},),
            input_names=["images"],
            output_names=["outputs"],
            verbose=False,
        )
    assert program is not None  # only the older exporter returns nothing
    for node in program.model.graph:
        node.metadata_props.clear()  # lines of source, with this machine's paths
    program.model.metadata_props.update(metadata or {})
    content: bytes = program.model_proto.SerializeToString()
    return content


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's warnings about its own passes."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _unfused(model: nn.Module) -> Iterator[None]:
    """With attention written as products and a softmax, which is what ONNX makes of it anyway.

    torch's exporter does so by itself, but not in windows, whose tensors have a dimension more.
    """
    fused: list[Any] = [each for each in model.modules() if getattr(each, "fused_attn", False)]
    for module in fused:
        module.fused_attn = False
    try:
        yield
    finally:
        for module in fused:
            module.fused_attn = True

"""Networks whose linear layers compute with 8-bit integers, made by ONNX Runtime's own tools."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from itertools import islice
from pathlib import Path

from torch import Tensor

from ofbnas.training.data import Split

BATCH = 32
CALIBRATION_BATCHES = 16
# Linear layers. The patch embedding stays as it is: it is a small part of the time, and what it
# loses is lost for all blocks.
OPERATORS = ["MatMul", "Gemm"]


class Int8(StrEnum):
    """How the ranges of activations are found.

    Attributes:
        DYNAMIC: For each batch, while it is computed.
        STATIC: Once, on validation images.
    """

    DYNAMIC = "dynamic"
    STATIC = "static"


def quantize(float_file: Path, int8_file: Path, method: Int8, images: Split | None) -> None:
    """Write a network of 8-bit integers.

    Each output channel of a layer has a scale of its own. Weights have 7 bits: processors without
    8-bit dot products (VNNI, for x86) add pairs of products in 16 bits, which others would overflow.
    Products of two activations, which attention consists of, stay in float.

    Args:
        float_file: An ONNX model; its folder is used for files in between.
        int8_file: The file to write.
        method: How the ranges of activations are found.
        images: Images to find them on; only for `Int8.STATIC`.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantType,
        quantize_dynamic,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    # Folds constants, so that the weights of every layer are known as such; shapes are not needed.
    folded = float_file.with_name("folded.onnx")
    quant_pre_process(float_file, folded, skip_symbolic_shape=True)
    model = onnx.load(folded)
    # Some exporters note shapes of weights, too, which would contradict what is made of them below.
    del model.graph.value_info[:]
    onnx.save(model, folded)
    options = {"MatMulConstBOnly": True}
    if method is Int8.DYNAMIC:
        quantize_dynamic(
            folded,
            int8_file,
            op_types_to_quantize=OPERATORS,
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            extra_options=options,
        )
        return

    assert images is not None
    batches = _batches(images)

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # has no types
        """Hands the images to ONNX Runtime."""

        def get_next(self) -> dict[str, object] | None:
            batch = next(batches, None)
            return None if batch is None else {"images": batch.numpy()}

    quantize_static(
        folded,
        int8_file,
        Reader(),
        op_types_to_quantize=OPERATORS,
        per_channel=True,
        reduce_range=True,
        # Processors multiply unsigned activations with signed weights.
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        extra_options=options,
    )


def _batches(images: Split) -> Iterator[Tensor]:
    """Some batches of images, without labels."""
    for batch, _ in islice(images.batches(BATCH), CALIBRATION_BATCHES):
        yield batch

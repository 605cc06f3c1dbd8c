"""A network as a file that runs without ofbnas: an ONNX model, or a program of torch.export.

The file also holds, as text, how its images are prepared and what else was said of it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from ofbnas.errors import ExportError, InputError, one_line
from ofbnas.models.axes import input_size
from ofbnas.training.onnx_runtime import check_onnx, to_onnx

ONNX = ".onnx"
PT2 = ".pt2"
MOST_BYTES = 2**31  # of an ONNX file, a limit of Protocol Buffers
PREPROCESSING = "preprocessing"  # its name among the texts of a file


@dataclass(frozen=True)
class Preprocessing:
    """How an image is prepared for a network, by timm's names.

    It is resized until its shorter side is the network's divided by `crop_pct`, cropped at its
    centre, divided by 255, and normalised.

    Attributes:
        input_size: Channels, height and width of the prepared image.
        mean: Mean of each channel, for pixels in 0 to 1.
        std: Standard deviation of each channel, for pixels in 0 to 1.
        crop_pct: Share of the resized image, per side, that is kept.
        interpolation: How it is resized: "bilinear", "bicubic" or "random".
        class_names: Name of each class; None if they are not known.
    """

    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_pct: float
    interpolation: str
    class_names: tuple[str, ...] | None


def export(
    model: nn.Module, suffix: str, preprocessing: Preprocessing, about: Mapping[str, str]
) -> bytes:
    """The content of a file with a network for batches of any size.

    Args:
        model: In evaluation mode, on the CPU.
        suffix: ".onnx" or ".pt2".
        preprocessing: How its images are prepared.
        about: Further texts for the file, by name.

    Raises:
        InputError: ONNX is not installed, or the network is too large for it.
        ExportError: torch cannot export this network.
    """
    texts = {PREPROCESSING: json.dumps(asdict(preprocessing)), **about}
    images = torch.zeros(2, *input_size(model))
    if suffix == ONNX:
        check_onnx()
        num_bytes = sum(tensor.nbytes for tensor in model.state_dict().values())
        if num_bytes >= MOST_BYTES:
            raise InputError(
                f"the network has {num_bytes / 2**30:.1f} GiB of weights, and an ONNX file holds at "
                "most 2: export it as pt2"
            )
    # torch documents no common class of what its exporters raise.
    try:
        if suffix == ONNX:
            return to_onnx(model, images, texts)
        return _to_pt2(model, images, texts)
    except Exception as error:
        raise ExportError(
            f"torch cannot export this network to {suffix}: {one_line(error)}"
        ) from error


def _to_pt2(model: nn.Module, images: Tensor, texts: Mapping[str, str]) -> bytes:
    """A program of torch.export, saved."""
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (images,), dynamic_shapes=({0: batch},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # lines of source, with this machine's paths
    file = io.BytesIO()
    torch.export.save(program, file, extra_files=dict(texts))
    return file.getvalue()


class Exported(nn.Module):
    """An exported network on the CPU, to be evaluated like the module that it was made from.

    Attributes:
        num_classes: Number of classes; 0 if its outputs are features.
    """

    def __init__(self, run: Callable[[Tensor], Tensor], num_classes: int) -> None:
        super().__init__()
        self.run = run
        self.num_classes = num_classes
        # Evaluation puts images where a model's parameters are.
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        """Outputs, [batch, classes or features], of images, [batch, channels, height, width]."""
        return self.run(images)


def load_exported(file: Path, num_classes: int) -> Exported:
    """An exported network: .onnx in ONNX Runtime, .pt2 in torch.

    Args:
        file: One that this machine exported; others may hold code.
        num_classes: Number of classes; 0 if its outputs are features.
    """
    if file.suffix == PT2:
        program = torch.export.load(file).module()
        return Exported(lambda images: cast(Tensor, program(images)), num_classes)

    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # to compare times with torch's
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        (outputs,) = session.run(None, {"images": images.numpy()})
        return torch.from_numpy(outputs)

    return Exported(run, num_classes)

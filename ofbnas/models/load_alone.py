"""Load the network in this folder with timm alone: `from load import load; model = load()`."""

import json
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn


class Same(nn.Identity):
    """Stands for what is gone without a trace: it gives what it is given."""

    def forward(self, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The input itself."""
        return input


class Zeros(nn.Module):
    """Stands for an attention or an MLP that is gone: it adds nothing."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Zeros like x."""
        return torch.zeros_like(x)


def load(folder: Path | str = Path(__file__).parent) -> nn.Module:
    """The network, in evaluation mode: the model that it was cut from, with all that was changed."""
    config = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
    cut = config["ofbnas"]
    changes = cut["rebuilt"]
    model: nn.Module = timm.create_model(cut["model"], **cut["kwargs"])

    def put(path: str, value: Any) -> None:
        owner, _, name = path.rpartition(".")
        setattr(model.get_submodule(owner), name, value)

    for path, kind in changes["stand_ins"].items():
        owner, _, name = path.rpartition(".")
        delattr(model.get_submodule(owner), name)
        put(path, {"same": Same(), "zeros": Zeros(), "one": 1.0}[kind])
    parameters = dict(model.named_parameters())
    for path, tensor in load_file(Path(folder, "model.safetensors")).items():
        put(path, nn.Parameter(tensor) if path in parameters else tensor)
    for path, shape in changes["buffers"].items():
        put(path, torch.zeros(shape))
    for path, value in changes["attributes"].items():
        put(path, tuple(value) if path.endswith("shape") else value)
    model.pretrained_cfg = config["pretrained_cfg"]
    return model.eval()

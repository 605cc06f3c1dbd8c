"""The layers of timm's attentions and MLPs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from timm.layers import GluMlp, Mlp, SwiGLU
from timm.models.vitamin import GeGluMlp
from torch import nn


class BranchLayers(NamedTuple):
    """The layers by which an attention or an MLP is tied to the stream.

    Attributes:
        reads: Those that read the stream.
        write: The one that writes into it.
    """

    reads: tuple[str, ...]
    write: str


MLPS: dict[type[nn.Module], BranchLayers] = {
    Mlp: BranchLayers(("fc1",), "fc2"),
    GluMlp: BranchLayers(("fc1",), "fc2"),
    SwiGLU: BranchLayers(("fc1_g", "fc1_x"), "fc2"),
    GeGluMlp: BranchLayers(("w0", "w1"), "w2"),
}
ATTENTION = BranchLayers(("qkv", "q_proj", "k_proj", "v_proj", "gate"), "proj")


def layers_of(module: str, layers: Iterable[str]) -> list[str]:
    """The full names of a module's layers."""
    return [f"{module}.{layer}" for layer in layers]


def has_head_norm(attention: Any) -> bool:
    """Whether an attention normalises the queries and keys of each head."""
    q_norm = getattr(attention, "q_norm", None)
    return not isinstance(q_norm, nn.Identity | None)

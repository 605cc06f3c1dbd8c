"""Networks that timm makes from its own arguments: blocks that are all alike."""

from __future__ import annotations

from typing import Any

from torch import nn

from ofbnas.errors import InputError
from ofbnas.models.architecture import Architecture, Sizes
from ofbnas.models.axes import axes
from ofbnas.models.axes.axis import shapes_of
from ofbnas.models.create import on_meta


def stock_args(architecture: Architecture, model: nn.Module) -> dict[str, Any] | None:
    """Arguments of timm.create_model, for the parent's name, that make this very network.

    timm has one number of heads and one share of hidden units for all blocks, and heads that are
    together as wide as the embedding.

    Args:
        architecture: The architecture.
        model: Its model.

    Returns:
        The arguments, or None where timm has none for it.
    """
    changed = alike(architecture.sizes)
    if changed is None:
        return None
    arguments = {**architecture.kwargs, **changed}
    # Families differ in what their arguments mean, so the model that these make is compared.
    try:
        stock = on_meta(architecture.model, arguments).model
        sizes = {axis.name: axis.size for axis in axes(stock, {})}
    except InputError:
        return None
    same = sizes == architecture.sizes
    same = same and shapes_of(stock.state_dict()) == shapes_of(model.state_dict())
    return arguments if same else None


def alike(sizes: Sizes) -> dict[str, Any] | None:
    """The arguments of timm's Vision Transformers for sizes that all blocks have alike, or None."""
    attentions = {size for name, size in sizes.items() if name.endswith(".attn")}
    hidden = {size for name, size in sizes.items() if name.endswith(".mlp")}
    if len(attentions) != 1 or len(hidden) != 1 or "embed" not in sizes:
        return None
    (heads, head_size) = attentions.pop()
    (_, units) = hidden.pop()
    groups, channels = sizes["embed"]
    embedding = groups * channels
    if not heads or not units or heads * head_size != embedding:
        return None
    return {"embed_dim": embedding, "num_heads": heads, "mlp_ratio": _ratio(units, embedding)}


def _ratio(units: int, embedding: int) -> float:
    """The ratio of hidden units to the embedding that timm's `int(embedding * ratio)` undoes.

    >>> _ratio(96, 32), int(11 * _ratio(15, 11))
    (3.0, 15)
    """
    ratio = units / embedding
    # Rounding may leave the product a hair below the whole number, which `int` then cuts off.
    return ratio if int(embedding * ratio) == units else (units + 0.5) / embedding

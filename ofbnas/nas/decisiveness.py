"""What makes the options of an axis differ, until one of them is left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch

from ofbnas.config import SearchConfig
from ofbnas.models.axes import Axis
from ofbnas.models.bimask import BiMask
from ofbnas.training import losses


class Decisiveness(NamedTuple):
    """Two losses over all open axes, [] each.

    Attributes:
        one_hot: The adaptive one-hot loss, which pulls probabilities apart.
        norm: The weighted importance norm, which pulls importance to 0.
    """

    one_hot: torch.Tensor
    norm: torch.Tensor


def decisiveness(
    axes: Iterable[Axis],
    masks: Mapping[str, BiMask],
    config: SearchConfig,
) -> Decisiveness:
    """The losses of open axes that do not depend on images or on the budget.

    Args:
        axes: All axes.
        masks: Axis name to the mask of each open axis.
        config: Configuration of the search.
    """
    norm_weights = {
        "attn": config.importance.norm_attn,
        "mlp": config.importance.norm_mlp,
        "embed": config.importance.norm_embed,
    }
    device = next(iter(masks.values())).logits.device
    one_hot = torch.zeros((), device=device)
    norm = torch.zeros((), device=device)
    for axis in axes:
        mask = masks.get(axis.name)
        if mask is None:
            continue
        axis_norm = losses.importance_norm(mask.gate())
        norm = norm + norm_weights[axis.kind] * axis_norm
        # A decided axis is open until its units are removed, but has nothing to pull apart.
        if not mask.decided:
            axis_one_hot = losses.adaptive_one_hot(
                mask.probabilities(),
                mask.num_alive,
                config.one_hot_margin,
            )
            one_hot = one_hot + axis_one_hot
    return Decisiveness(one_hot, norm)

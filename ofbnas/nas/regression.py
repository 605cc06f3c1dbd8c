"""Ridge regression of a linear layer's weights, in double precision."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def rows_of(layer: nn.Linear, inputs: Tensor) -> Tensor:
    """A layer's inputs with a 1 for the bias, [images and tokens, inputs], in double precision."""
    rows = inputs.flatten(0, -2).double()
    if layer.bias is None:
        return rows
    return torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)


def solution(gram: Tensor, products: Tensor, ridge: float) -> Tensor:
    """The solution X of (gram + ridge * mean(diag(gram)) I) X = products."""
    damping = (ridge * gram.diagonal().mean()).clamp(min=1e-12)  # inputs may all be 0
    damped = gram + damping * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return torch.cholesky_solve(products, torch.linalg.cholesky(damped))

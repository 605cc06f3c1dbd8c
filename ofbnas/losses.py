"""The terms of the search's loss (OFB, arXiv 2403.15835)."""

from __future__ import annotations

import torch
from torch import Tensor


def adaptive_one_hot(p: Tensor, num_alive: int, margin: float = 0.05) -> Tensor:
    """The adaptive one-hot loss of an axis: its entropy, and cot(pi r) / n.

    r = sum (p - 1/n)^2 / (1 - 1/n) over the n options alive is 0 where all are equal and 1 at one-hot. The cotangent
    has poles at both ends; r is therefore squeezed into [margin, 1 - margin], which bounds the loss and its gradient
    and, unlike clamping, keeps the slope.

    Args:
        p: Probabilities of the options, 0 for dead ones, any shape.
        num_alive: n, at least 2.
        margin: Distance from both poles, in (0, 0.5).

    Returns:
        The loss, [].
    """
    n = num_alive
    r = (p.square().sum() - 1 / n) / (1 - 1 / n)
    angle = torch.pi * (margin + (1 - 2 * margin) * r)
    entropy = -(p * p.clamp(min=torch.finfo(p.dtype).tiny).log()).sum()  # clamped: the slope at 0 stays finite
    return entropy + angle.cos() / (angle.sin() * n)


def importance_norm(gate: Tensor) -> Tensor:
    """Sum of sigma(s) over an axis' units, []."""
    return gate.sum()


def budget_pull(gap: Tensor, weight: float, multiplier: Tensor) -> Tensor:
    """What holds the expected cost at the budget: an augmented Lagrangian, [].

    OFB has the square alone; with it the one-hot loss, whose gradient is larger, decides first. The multiplier grows
    by dual ascent until the gap closes.

    Args:
        gap: Expected cost above the budget, as a share of the full cost, [].
        weight: Of the square.
        multiplier: Of the gap itself, [].
    """
    return weight * gap.square() + multiplier * gap


def distillation(student: Tensor, teacher: Tensor, temperature: float, hard: bool = False) -> Tensor:
    """How far the student's outputs are from the teacher's, [].

    Soft: Kullback-Leibler divergence from softened probabilities, times T^2 (Hinton et al., 2015, arXiv 1503.02531).
    Hard: cross-entropy with predicted classes (Touvron et al., 2021, arXiv 2012.12877).

    Args:
        student: Outputs, [batch, classes].
        teacher: Outputs, [batch, classes].
        temperature: T; 1 leaves the teacher's probabilities as they are.
        hard: Whether to learn predicted classes.
    """
    if hard:
        return torch.nn.functional.cross_entropy(student, teacher.argmax(-1))
    soft, goal = ((outputs / temperature).log_softmax(-1) for outputs in (student, teacher))
    return torch.nn.functional.kl_div(soft, goal, log_target=True, reduction="batchmean") * temperature**2


def feature_distance(student: Tensor, teacher: Tensor, channels: Tensor) -> Tensor:
    """One minus the cosine between final features, averaged over images and tokens, [].

    Args:
        student: [batch, tokens, channels kept].
        teacher: [batch, tokens, channels].
        channels: The teacher's channels that the student kept, [channels kept].
    """
    return 1 - torch.nn.functional.cosine_similarity(student, teacher[..., channels], dim=-1).mean()


def likeness_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference between the cosines that images of a batch have to each other, [].

    It compares features of any two widths without further weights (as Tung and Mori, 2019, arXiv 1907.09682).

    Args:
        student: [batch, features].
        teacher: [batch, features], of any number.
    """
    ours, theirs = (torch.nn.functional.normalize(features.float(), dim=-1) for features in (student, teacher))
    return (ours @ ours.T - theirs @ theirs.T).square().mean()

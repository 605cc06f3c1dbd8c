"""The terms of the search's loss (OFB, arXiv 2403.15835)."""

from __future__ import annotations

import torch
from torch import Tensor


def adaptive_one_hot(
    p: Tensor,
    num_alive: int,
    margin: float = 0.05,
) -> Tensor:
    """The adaptive one-hot loss of an axis: its entropy plus cot(pi r) / n.

    r = sum (p - 1/n)^2 / (1 - 1/n), over the n options alive, is 0 where all are equally probable
    and 1 at one-hot. The cotangent has poles at both ends, so r is squeezed into
    [margin, 1 - margin]: this bounds the loss and its gradient and, unlike clamping, keeps the
    slope.

    Args:
        p: Probabilities of the options, 0 for dead ones, any shape.
        num_alive: n, at least 2.
        margin: Distance from both poles, in (0, 0.5).

    Returns:
        The loss, [].
    """
    n = num_alive
    # The sum of (p - 1/n)^2 is the sum of p^2 minus 1/n, as p adds up to 1.
    distance = p.square().sum() - 1 / n
    most = 1 - 1 / n
    r = distance / most
    squeezed = margin + (1 - 2 * margin) * r
    angle = torch.pi * squeezed
    cotangent_over_n = angle.cos() / (angle.sin() * n)

    # Clamped, so that the gradient at p = 0 is finite: dead options have that probability.
    tiny = torch.finfo(p.dtype).tiny
    log_p = p.clamp(min=tiny).log()
    entropy = -(p * log_p).sum()
    return entropy + cotangent_over_n


def importance_norm(gate: Tensor) -> Tensor:
    """Sum of sigma(s) over an axis' units, []."""
    return gate.sum()


def budget_pull(
    gap: Tensor,
    weight: float,
    multiplier: Tensor,
) -> Tensor:
    """The loss that pulls the expected cost to the budget: an augmented Lagrangian, [].

    OFB uses the square alone, whose gradient is smaller than the one-hot loss's, so that options
    would be decided without regard to the budget. The multiplier grows by dual ascent until the gap
    closes.

    Args:
        gap: Expected cost above the budget, as a share of the full cost, [].
        weight: Weight of the squared gap.
        multiplier: Lagrange multiplier of the gap, [].
    """
    return weight * gap.square() + multiplier * gap


def distillation(
    student: Tensor,
    teacher: Tensor,
    temperature: float,
    hard: bool = False,
) -> Tensor:
    """Distance of the student's outputs from the teacher's, [].

    Soft: Kullback-Leibler divergence of softened probabilities, times T^2, which keeps the size of
    gradients (Hinton et al., 2015, arXiv 1503.02531).
    Hard: cross-entropy with predicted classes (Touvron et al., 2021, arXiv 2012.12877).

    Args:
        student: Outputs, [batch, classes].
        teacher: Outputs, [batch, classes].
        temperature: T; 1 leaves the teacher's probabilities as they are.
        hard: Whether to learn the classes that the teacher predicts.
    """
    if hard:
        predicted = teacher.argmax(-1)
        return torch.nn.functional.cross_entropy(student, predicted)
    # log_softmax on both sides: the logarithm of a probability near 0 would be infinite.
    softened = (student / temperature).log_softmax(-1)
    target = (teacher / temperature).log_softmax(-1)
    divergence = torch.nn.functional.kl_div(
        softened, target, log_target=True, reduction="batchmean"
    )
    return divergence * temperature**2


def feature_distance(
    student: Tensor,
    teacher: Tensor,
    channels: Tensor,
) -> Tensor:
    """One minus the cosine between final features, averaged over images and tokens, [].

    Args:
        student: [batch, tokens, channels kept].
        teacher: [batch, tokens, channels].
        channels: The teacher's channels that the student kept, [channels kept].
    """
    kept = teacher[..., channels]
    cosines = torch.nn.functional.cosine_similarity(student, kept, dim=-1)
    return 1 - cosines.mean()


def similarity_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the cosine similarities among the images of a batch, [].

    It compares features of any two widths without additional weights (as Tung and Mori, 2019, arXiv
    1907.09682).

    Args:
        student: [batch, student's features].
        teacher: [batch, teacher's features].
    """
    # Of unit vectors, all cosines at once: [batch, batch].
    ours = torch.nn.functional.normalize(student.float(), dim=-1)
    theirs = torch.nn.functional.normalize(teacher.float(), dim=-1)
    difference = ours @ ours.T - theirs @ theirs.T
    return difference.square().mean()

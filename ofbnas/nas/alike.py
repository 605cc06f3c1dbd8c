"""The choice among networks whose blocks are alike: there are so few that all are looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ofbnas.models.axes.axis import Kind
from ofbnas.nas.dynamic import Floats, Ints, Window
from ofbnas.nas.knapsack import AnyCost


def choices(kinds: Sequence[Kind], sizes: Sequence[Ints]) -> Iterator[list[int]]:
    """Every choice in which all axes of a kind have the same size, and the embedding that of all heads.

    Args:
        kinds: Of the axes.
        sizes: For each axis the (groups, channels) of each of its options, [options, 2].

    Yields:
        An option's index for each axis.

    Two heads of 4 make an embedding of 8, but there is none of 4 for one head:

    >>> sizes = [np.array([[1, 8], [1, 6]]), np.array([[1, 4], [2, 4]]), np.array([[1, 16]])]
    >>> list(choices(["embed", "attn", "mlp"], sizes))
    [[0, 1, 0]]
    """
    index = [{tuple(size): at for at, size in enumerate(of_axis.tolist())} for of_axis in sizes]

    def common(kind: Kind) -> list[tuple[int, ...]]:
        """The sizes that all axes of a kind may take, ascending."""
        of_kind = [set(known) for known, own in zip(index, kinds, strict=True) if own == kind]
        return sorted(set.intersection(*of_kind))

    embeddings = set(common("embed"))
    hidden = common("mlp")
    for attention in common("attn"):
        heads, channels = attention
        embedding = (1, heads * channels)
        if embedding not in embeddings:
            continue
        for mlp in hidden:
            size = {"embed": embedding, "attn": attention, "mlp": mlp}
            yield [known[size[kind]] for known, kind in zip(index, kinds, strict=True)]


def best_alike(
    cost: AnyCost, sizes: Sequence[Ints], scores: Sequence[Floats], window: Window
) -> list[int] | None:
    """The choice of `choices` with the highest total score in a window; None if there is none there."""
    best: list[int] | None = None
    best_score = -np.inf
    for picks in choices(cost.alike, sizes):
        score = sum(float(of_axis[pick]) for of_axis, pick in zip(scores, picks, strict=True))
        if score > best_score and cost.of(picked(sizes, picks)) in window:
            best = picks
            best_score = score
    return best


def picked(sizes: Sequence[Ints], picks: Sequence[int]) -> Ints:
    """The sizes of a choice, [axes, 2]."""
    return np.array([of_axis[pick] for of_axis, pick in zip(sizes, picks, strict=True)])

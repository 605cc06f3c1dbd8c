"""Evenly spaced numbers, counted before they are listed: a tiny step would fill the memory."""

from __future__ import annotations

import sys

# Sizes of an axis under one key of a search space; with more, choosing among them takes too long.
MAX_OPTIONS = 1_024


def count(low: float, high: float, step: float) -> int:
    """How many of the numbers low, low + step, low + 2 step, ... are at most `high`.

    Args:
        low: The first number.
        high: At least `low`.
        step: Above 0.

    >>> count(0.0, 0.3, 0.1)
    4
    """
    steps = min((high - low) / step, sys.maxsize)  # the quotient may be infinite

    # Rounding may leave a quotient just below a whole number: 0.3 / 0.1 is 2.9999999999999996.
    return int(steps + 1e-9) + 1


def spaced(low: float, high: float, step: float) -> list[float]:
    """The numbers low, low + step, low + 2 step, ... that are at most `high`.

    >>> spaced(0.25, 1.0, 0.25)
    [0.25, 0.5, 0.75, 1.0]
    """
    return [low + index * step for index in range(count(low, high, step))]

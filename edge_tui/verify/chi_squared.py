"""Computes how far counts are from what is expected, and how far chance takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

DRAWS = 100_000
"""Draws of one test."""
ODDS = "1 in 100,000"
"""How often chance alone exceeds the limit; seeds are fixed, so a test that holds once holds always."""
_NORMAL = 4.265
"""The standard normal distribution exceeds it so often."""
_LEAST = 5.0
"""Smallest expected count for which the test is about right; rarer ones are put together."""


def chi_squared(counts: NDArray[Any], chances: NDArray[np.float64]) -> tuple[float, float]:
    """Compares counts with chances.

    Args:
        counts: int `[N]`.
        chances: float64 `[N]`, their sum 1.

    Returns:
        χ² and its limit (Wilson–Hilferty), which chance exceeds `ODDS`; +inf where a token came
        that cannot.
    """
    if counts[chances <= 0].sum():
        return np.inf, 0.0
    expected = chances * counts.sum()
    usual = expected >= _LEAST
    seen, awaited = counts[usual].astype(np.float64), expected[usual]
    if expected[~usual].sum() >= _LEAST:
        seen, awaited = np.append(seen, counts[~usual].sum()), np.append(awaited, expected[~usual].sum())
    freedom = max(1, len(seen) - 1)
    spread = 2 / (9 * freedom)
    limit = freedom * (1 - spread + _NORMAL * spread**0.5) ** 3
    return float(((seen - awaited) ** 2 / awaited).sum()), float(limit)

"""Rounds up the number of positions that a run reserves."""

from __future__ import annotations

DEPTH = 32
"""Most steps under way on an accelerator."""

SLACK = DEPTH + 2
"""Positions beyond the last token that steps launched ahead may still write to."""
_STEP = 512


def round_up(need: int) -> int:
    """Rounds a capacity up, so that the next, longer run can take the context over."""
    return (need + _STEP - 1) // _STEP * _STEP

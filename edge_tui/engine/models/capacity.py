"""Defines in which steps positions are read and reserved."""

from __future__ import annotations

DEPTH = 32
"""Most steps under way on an accelerator."""

SLACK = DEPTH + 2
"""Positions beyond the last token that steps launched ahead may still write to."""
CHUNK = 512
"""Positions that a prefill reads at once."""
STEP = 512
"""Room is a multiple of this, so that the next, longer run can take a context over."""
SLICE = 256
"""Queries whose capped scores exist at once."""


def round_up(need: int) -> int:
    """Rounds a number of positions up to a multiple of `STEP`."""
    return -(-need // STEP) * STEP

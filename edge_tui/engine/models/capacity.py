"""Defines how many positions are read at once, reserved at once, and kept free for steps launched ahead."""

from __future__ import annotations

DEPTH = 32
"""Most steps under way on an accelerator."""

SLACK = DEPTH + 2
"""Positions beyond the last token that steps launched ahead may still write to."""
CHUNK = 512
"""Positions that a prefill reads at once."""
STEP = 512
"""Capacity is a multiple of this, so that the next, longer run can reuse a context."""
SLICE = 256
"""Queries whose capped scores exist at once."""


def round_up(need: int) -> int:
    """Rounds a number of positions up to a multiple of `STEP`."""
    return -(-need // STEP) * STEP

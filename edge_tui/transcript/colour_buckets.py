"""Maps probability, rank, entropy or margin of tokens to eight steps of colour."""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from edge_tui.transcript.transcript import Transcript

ColourBy = Literal["probability", "rank", "entropy", "margin"]

BUCKETS = 8
"""0 is the least expected, 7 the most."""
PROBABILITIES = (0.01, 0.05, 0.15, 0.3, 0.5, 0.7, 0.9)
"""Lower bounds of buckets 1 to 7."""
RANKS = (0, 1, 2, 4, 9, 19, 99)
"""Upper bounds of buckets 7 to 1."""
ENTROPIES = (0.1, 0.3, 0.7, 1.2, 2.0, 3.0, 4.5)
"""Upper bounds of buckets 7 to 1, in nats."""
MARGINS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Lower bounds of buckets 1 to 7, in nats: below the first, another token was nearly taken."""
SURPRISING = 2
""""Next surprising token" stops at buckets up to this one."""

_LOGPS = tuple(log(p) for p in PROBABILITIES)

LEGENDS: dict[ColourBy, tuple[str, tuple[str, ...]]] = {
    "probability": ("p", ("<1%", "1", "5", "15", "30", "50", "70", "≥90%")),
    "rank": ("rank", (">100", "≤100", "≤20", "≤10", "4-5", "3", "2", "1")),
    "entropy": ("nats", (">4.5", "≤4.5", "≤3", "≤2", "≤1.2", "≤.7", "≤.3", "≤.1")),
    "margin": ("margin", ("<.02", "≥.02", "≥.05", "≥.1", "≥.2", "≥.4", "≥.8", "≥1.6")),
}
"""Name of the quantity and labels of the steps, least expected first."""


def buckets(
    transcript: Transcript, by: ColourBy, final: bool, start: int, stop: int | None = None
) -> list[int]:
    """Returns the bucket of each token from `start` to `stop`; unknown numbers count as expected."""
    import numpy as np

    if by == "probability":
        logp = transcript.column("final_logp" if final else "raw_logp", start, stop)
        found = np.searchsorted(_LOGPS, logp, side="right")
    elif by == "margin":
        found = np.searchsorted(MARGINS, transcript.column(by, start, stop), side="right")
    else:
        bounds = RANKS if by == "rank" else ENTROPIES
        values = np.nan_to_num(transcript.column(by, start, stop))
        found = BUCKETS - 1 - np.searchsorted(bounds, values, side="left")
    result: list[int] = found.tolist()
    return result

"""The figures that the history is held to."""

from __future__ import annotations

import tracemalloc

from edge_tui.transcript.transcript import Transcript
from tests.history.runs import batch, started


def test_a_token_kept_on_the_screen_takes_at_most_400_bytes() -> None:
    # Texts are new objects, as from an engine: those that are the same take their memory once.
    steps = [batch([f"word {k % 50} " for k in range(64)], 64 * i) for i in range(80)]
    transcript = Transcript(started())
    transcript.extend(steps[0])
    tracemalloc.start()
    try:
        for step in steps[1:]:
            transcript.extend(step)
            assert len(transcript) == transcript.record_count
        # Room ahead is an eighth at most; what counts is what stays once it is used.
        taken = tracemalloc.get_traced_memory()[0] / (len(transcript) - 64)
    finally:
        tracemalloc.stop()
    assert taken <= 400 * 9 / 8

from __future__ import annotations

from dataclasses import replace
from math import inf, nan

import numpy as np

from edge_tui.transcript.colour_buckets import BUCKETS, LEGENDS, buckets
from edge_tui.transcript.transcript import Transcript
from tests.tui.transcripts import batch, started


def test_near_misses_have_the_colours_of_the_unexpected() -> None:
    margins = (0.001, 0.021, 0.3, 5.0, inf, nan)
    transcript = Transcript(started())
    tokens = batch(["a", "b", "c", "d", "e", "f"])
    transcript.extend(replace(tokens, margin=np.array(margins, np.float32)))
    assert buckets(transcript, "margin", False, 0) == [0, 1, 4, 7, 7, 7]
    assert buckets(transcript, "margin", False, 2, 4) == [4, 7]


def test_every_quantity_has_a_label_for_each_step() -> None:
    assert all(len(steps) == BUCKETS for _, steps in LEGENDS.values())

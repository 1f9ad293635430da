"""Removes control characters from every painted line.

Widgets show text from outside through `sanitise`, which makes such characters visible. This filter holds
where one forgets to: the character is left out, and the line keeps its width.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.segment import Segment
from textual.filter import LineFilter

if TYPE_CHECKING:
    from textual.color import Color

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""C0, DEL, C1, separators, bidirectional controls, and surrogates, which no terminal can be sent."""


class ControlFilter(LineFilter):
    """Removes control characters; a space replaces one that has a width."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """Removes the control characters of each segment."""
        if not any(_CONTROL.search(segment.text) for segment in segments):
            return segments
        return [
            Segment(_CONTROL.sub(_room, segment.text), segment.style, segment.control) for segment in segments
        ]


def _room(match: re.Match[str]) -> str:
    return " " * cell_len(match.group())


CONTROLS = ControlFilter()

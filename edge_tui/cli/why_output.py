"""Prints why a token was taken: the ladder in a terminal's width and colours, or one line of it."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from edge_tui.transcript.ladder import ladder_lines
from edge_tui.util.safe_stream import write_control
from edge_tui.util.sanitise import one_line, visible

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TextIO

    from edge_tui.engine.explanation import Explanation
    from edge_tui.transcript.ladder import Role

WIDTH = 100
"""Cells of a line where nothing tells how wide it may be."""
_NARROWEST, _WIDEST = 32, 160
_STYLES: Mapping[Role, str] = {
    "sentence": "1",
    "head": "2",
    "taken": "1;32",
    "cut": "31",
    "luck": "36",
    "sum": "1",
    "rule": "33",
    "muted": "2",
}
"""SGR codes of a ladder's roles; all of them are among the eight colours that every terminal has."""


class WhyPrinter:
    """Prints explanations to a stream.

    Args:
        out: The stream.
        environment: The process's variables; NO_COLOR and TERM decide on colours, COLUMNS on the width.
    """

    def __init__(self, out: TextIO, environment: Mapping[str, str]) -> None:
        self._out = out
        self._is_coloured = (
            out.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"
        )
        self._width = min(max(_width(out, environment), _NARROWEST), _WIDEST)
        self._notes: set[str] = set()

    def ladder(self, why: Explanation, place: str) -> None:
        """Prints the whole ladder under a heading."""
        self._line((f"── {place} ──", "head"))
        for line in ladder_lines(why, self._width):
            self._line(*line.parts)

    def line(self, why: Explanation, place: str) -> None:
        """Prints a token and the sentence about it; in front of that a note, unless it was told before."""
        token: Role = "taken" if why.winner == why.token else "cut"
        text = next(each.text for each in why.candidates if each.id == why.token)
        if why.note and why.note not in self._notes:
            self._notes.add(why.note)
            self._line((one_line(why.note), "muted"))
        self._line((f"{place:<6} ", "head"), (visible(text), token), (f"  {one_line(why.sentence)}", ""))

    def _line(self, *parts: tuple[str, Role]) -> None:
        if self._is_coloured:
            text = "".join(self._coloured(*part) for part in parts)
        else:
            text = "".join(text for text, _ in parts).rstrip()
        write_control(self._out, f"{text}\n")

    @staticmethod
    def _coloured(text: str, role: Role) -> str:
        style = _STYLES.get(role)
        return f"\x1b[{style}m{text}\x1b[0m" if style and text.strip() else text


def _width(out: TextIO, environment: Mapping[str, str]) -> int:
    columns = environment.get("COLUMNS", "")
    width = int(columns) if columns.isdecimal() else 0
    with suppress(OSError, ValueError):
        width = width or (os.get_terminal_size(out.fileno()).columns if out.isatty() else 0)
    return width or WIDTH  # a terminal that does not know its size says 0

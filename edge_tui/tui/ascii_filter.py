"""Replaces lines, blocks and marks by ASCII, for terminals that lack them or draw them two cells wide.

Those that draw lines twice as wide do so with dots, arrows and quotes as well: what East Asian fonts and
others disagree about.

One filter does it on the way to the screen, so that no widget needs to know. The text of a model or the user
is left as it is: panes of their text take no part, and in panels only what consists of marks alone changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.segment import Segment
from textual.filter import LineFilter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.color import Color

PLAIN = {
    **dict.fromkeys("─━╌╍┄┅┈┉╴╶╸╺═▔", "-"),
    **dict.fromkeys("│┃╎╏┆┇┊┋╵╷╹╻║▏▕▎▍", "|"),
    **dict.fromkeys("┌┐└┘├┤┬┴┼╭╮╰╯┏┓┗┛┣┫┳┻╋╔╗╚╝╠╣╦╩╬", "+"),
    **dict.fromkeys("█▉▊▋▌▐▀▄▇▓", "#"),
    **dict.fromkeys("▅▆▒", "="),
    **dict.fromkeys("▁▂░", "_"),
    "▃": "-",
    **dict.fromkeys("▸▶", ">"),
    **dict.fromkeys("◂◀", "<"),
    **dict.fromkeys("•●◆○◇", "*"),
    "▼": "v",
    "▲": "^",
    "⇣": "v",
    "↰": "<",
    "✓": "+",
    "✗": "x",
    "↯": "!",
    "⋮": ":",
    "Σ": "S",
}
"""ASCII for each mark; all are one cell wide."""
WRITTEN = {
    **dict.fromkeys("·–—", "-"),
    **dict.fromkeys("“”", '"'),
    **dict.fromkeys("→≥", ">"),
    **dict.fromkeys("←≤", "<"),
    "…": "~",
    "↑": "^",
    "↓": "v",
    "×": "x",
    **dict(zip("αβγδεζηθικλμνξοπρστυφχψω", "abgdezhqiklmnxoprstufcyw", strict=True)),
}
"""ASCII for punctuation and Greek letters, whose width is as unsure."""
_TABLE = str.maketrans(PLAIN | WRITTEN)
_EDGES = str.maketrans({edge: WRITTEN[edge] for edge in "“”…"})
"""Marks that panels put around somebody's text."""
_MARKS = frozenset(PLAIN) | frozenset(" 0123456789.%")


class AsciiFilter(LineFilter):
    """Replaces marks by ASCII.

    Args:
        alone: Leave them where they stand among other characters, which may be somebody's text; but not the
            quotes and the sign of a cut around it.
    """

    def __init__(self, alone: bool = False) -> None:
        super().__init__()
        self._alone = alone

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """Replaces the marks in each segment."""
        return [
            segment
            if segment.text.isascii()
            else Segment(self._plain(segment.text), segment.style, segment.control)
            for segment in segments
        ]

    def _plain(self, text: str) -> str:
        if not self._alone or _MARKS.issuperset(text):
            return text.translate(_TABLE)
        shown = text.strip(" ")
        first, inner, last = shown[:1], shown[1:-1], shown[1:][-1:]
        return text.replace(shown, f"{first.translate(_EDGES)}{inner}{last.translate(_EDGES)}")


def plain(text: str) -> str:
    """Replaces marks in a text of our own, which a panel shows among somebody's."""
    return text.translate(_TABLE)


EVERYWHERE, MARKS_ONLY = AsciiFilter(), AsciiFilter(alone=True)


def in_panel(filters: Sequence[LineFilter]) -> list[LineFilter]:
    """Selects the filters of a panel that shows somebody's text among its own marks."""
    return [MARKS_ONLY if each is EVERYWHERE else each for each in filters]


def in_text(filters: Sequence[LineFilter]) -> list[LineFilter]:
    """Selects the filters of a pane that shows nothing but somebody's text."""
    return [each for each in filters if each is not EVERYWHERE]

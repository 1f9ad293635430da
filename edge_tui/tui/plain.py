"""Drawing without lines, blocks and marks, for terminals whose font has none or draws them twice as wide.

One filter does it on the way to the screen, so that no widget needs to know. What a model or the user wrote
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
}
"""What stands for each mark; all are one cell wide."""
_TABLE = str.maketrans(PLAIN)
_MARKS = frozenset(PLAIN) | frozenset(" 0123456789")


class PlainMarks(LineFilter):
    """Replaces marks by ASCII.

    Args:
        alone: Leave them where they stand among other characters, which may be somebody's text.
    """

    def __init__(self, alone: bool = False) -> None:
        super().__init__()
        self._alone = alone

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [
            segment
            if segment.text.isascii() or (self._alone and not _MARKS.issuperset(segment.text))
            else Segment(segment.text.translate(_TABLE), segment.style, segment.control)
            for segment in segments
        ]


ALL, ALONE = PlainMarks(), PlainMarks(alone=True)


def in_panel(filters: Sequence[LineFilter]) -> list[LineFilter]:
    """The filters of a panel that shows somebody's text in parts of its own."""
    return [ALONE if each is ALL else each for each in filters]


def in_text(filters: Sequence[LineFilter]) -> list[LineFilter]:
    """The filters of a pane that shows nothing but somebody's text."""
    return [each for each in filters if each is not ALL]

"""Writes a ladder into a panel: as many tokens as it has lines for, one of them marked."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edge_tui.transcript.fitting import fit_start, pad, wrap_words
from edge_tui.transcript.ladder import LadderLine, LadderOptions, ladder_lines
from edge_tui.transcript.why_text import candidate_sentence

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from edge_tui.engine.explanation import Explanation
    from edge_tui.transcript.ladder import Order, Role
    from edge_tui.tui.widgets.line_panel import Line

STYLES: dict[Role, str] = {
    "": "",
    "sentence": "$foreground bold",
    "head": "$text-muted",
    "taken": "$accent bold",
    "number": "",
    "cut": "$error",
    "luck": "$secondary",
    "sum": "$primary bold",
    "rule": "$warning",
    "muted": "$text-muted",
}
"""How each role is painted."""
_MOST, _CUT = 24, 4
"""Most tokens that are listed of those left, and of those that each stage cut, while the rest is folded."""
_EVERY = 1000
_DETAIL = 2
"""Lines below the ladder that say what became of the marked token."""


class LadderView:
    """Holds an explanation and what of it is shown, and writes its lines for a size."""

    def __init__(self) -> None:
        self.why: Explanation | None = None
        self.order: Order = "sum"
        self.unfolded = False
        self.watched: Collection[int] = ()
        self.own: Mapping[str, Mapping[int, float]] = {}
        self.marks: list[LadderLine] = []
        """The lines that can be marked, top to bottom."""
        self._marks_y: list[int] = []
        self._top = 0
        self._ladder: list[LadderLine] = []
        self._key: object = None
        """What the ladder was laid out for; a moved mark needs no other one."""

    def lines(self, width: int, height: int, marked: int, *, detail: bool) -> list[Line]:
        """Writes the lines in sight.

        Args:
            width: Cells.
            height: Lines.
            marked: Number of the marked line among `marks`; −1 marks the first of another token.
            detail: True says at the bottom what became of the marked token.
        """
        assert self.why is not None
        below = _DETAIL if detail else 0
        room = max(height - below, 3)
        ladder = self._lay_out(width, room)
        if marked < 0:
            marked = self.first_other()
        at = self._marks_y[min(marked, len(self._marks_y) - 1)] if self._marks_y else 0
        # The sentence on top stays as long as the marked line is in sight with it.
        self._top = min(max(at - room + 2, 0), max(len(ladder) - room, 0))
        shown: list[Line] = [
            painted(line, marked=detail and y == at and bool(self._marks_y))
            for y, line in enumerate(ladder[self._top : self._top + room], self._top)
        ]
        if not detail:
            return shown
        sentence = candidate_sentence(self.why, self.marks[marked].id) if marked < len(self.marks) else ""
        words = wrap_words(sentence, width)
        if len(words) > below:
            words[below - 1 :] = [fit_start(" ".join(words[below - 1 :]), width)]
        shown += [()] * (height - len(words) - len(shown))
        return shown + [((pad(text, width), "$text-muted italic"),) for text in words]

    def _lay_out(self, width: int, height: int) -> list[LadderLine]:
        """Lays out the ladder, and finds the lines that can be marked."""
        assert self.why is not None
        options = LadderOptions(self.order, _EVERY, _EVERY, tuple(self.watched), own=self.own)
        key = (id(self.why), width, height, self.unfolded, options)
        if key != self._key:
            self._key = key
            if self.unfolded:
                self._ladder = ladder_lines(self.why, width, options)
            else:
                self._ladder = fitting_lines(self.why, width, height, options)
        self._marks_y = [y for y, line in enumerate(self._ladder) if line.id >= 0 or line.unfolds]
        self.marks = [self._ladder[y] for y in self._marks_y]
        return self._ladder

    def mark_at(self, y: int) -> int | None:
        """Finds the line that can be marked at a line of the panel."""
        line = y + self._top
        return self._marks_y.index(line) if line in self._marks_y else None

    def number_of(self, token: int) -> int:
        """Finds a token among the lines that can be marked; 0 where it is not listed."""
        return next((i for i, line in enumerate(self.marks) if line.id == token), 0)

    def first_other(self) -> int:
        """The first line of another token than the one that was taken."""
        taken = self.why.token if self.why is not None else -1
        return next((i for i, line in enumerate(self.marks) if line.id not in (-1, taken)), 0)


def fitting_lines(
    why: Explanation, width: int, height: int, options: LadderOptions | None = None
) -> list[LadderLine]:
    """Lays an explanation out with as many tokens as fit into `height` lines; briefly, where few do."""
    options = options or LadderOptions()
    lines = ladder_lines(why, width, replace(options, kept=_MOST, cut=_CUT))
    # Few layouts: those that have surely too many lines are left out.
    left = sum(each.removing_stage < 0 for each in why.candidates)
    most = max(min(_MOST, left) - max(len(lines) - height, 0) + _CUT, 3)
    for count, brief in [*((n, False) for n in range(most, 2, -1)), (4, True), (3, True), (2, True)]:
        if len(lines) <= height:
            break
        cut = min(max(count // 3, 1), _CUT)
        lines = ladder_lines(why, width, replace(options, kept=count, cut=cut, brief=brief))
    return lines


def painted(line: LadderLine, *, marked: bool = False) -> Line:
    """Maps roles to styles; the marked line has one style from edge to edge."""
    return tuple((text, "reverse" if marked else STYLES[role]) for text, role in line.parts)

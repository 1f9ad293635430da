"""Shows the competing hypotheses of a beam search, live."""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len

from edge_tui.tui.widgets.line_panel import LinePanel, fit_end, fit_start, pad, tail_start
from edge_tui.util.sanitise import one_line

if TYPE_CHECKING:
    from edge_tui.transcript.transcript import Hypothesis, Transcript
    from edge_tui.tui.widgets.line_panel import Line

_WIDE = 70
"""Least width that shows sums and lengths beside the score per token."""


class BeamBoard(LinePanel):
    """Draws one line for each place, best first; hypotheses move between places that stay.

    The beginning that all share is said once, above. Scores are those the answer will be chosen by. Of
    each hypothesis the end is shown, and in it what differs from the best one stands out. Finished
    ones follow below the live ones.
    """

    DEFAULT_CSS = """
    BeamBoard { min-height: 3; }
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._transcript: Transcript | None = None
        self._seen = (0, 0, False)

    def show(self, transcript: Transcript | None) -> None:
        """Shows the hypotheses of another run, or none."""
        self._transcript = transcript
        self._seen = (-1, -1, False)
        self.refresh_tail()

    def refresh_tail(self) -> None:
        """Shows the changes since the last call; cheap when there are none."""
        transcript = self._transcript
        if transcript is not None:
            seen = (transcript.record_count, transcript.revision, transcript.finished is not None)
            if seen == self._seen:
                return
            self._seen = seen
        self.update_lines()

    def compose_lines(self, width: int, height: int) -> list[Line]:
        """Writes the shared beginning, then the live hypotheses, then the finished ones."""
        transcript = self._transcript
        if transcript is None:
            return []
        hypotheses = transcript.hypotheses()
        live = [h for h in hypotheses if not h.finished]
        ended = [h for h in hypotheses if h.finished]
        shared = transcript.common_length
        label = f"settled {shared} "
        start = _text_line("".join(transcript.texts(max(shared - width, 0), shared)))
        lines: list[Line] = [((label, "$text-muted"), (fit_end(start, width - len(label)), "$text-muted"))]
        # The finished ones keep at least a third of the room once there are any.
        places = min(len(live), max(height - 1 - min(len(ended), max((height - 1) // 3, 1)), 1))
        best = live[0] if live else None
        for group in (live[:places], ended[: max(height - 1 - places * bool(live), 0)]):
            lines += [self._line(place, each, best, width) for place, each in enumerate(group, 1)]
        return lines

    def _line(self, place: int, hypothesis: Hypothesis, best: Hypothesis | None, width: int) -> Line:
        """Writes score, length and text of a hypothesis; the words that the best one shares are muted."""
        moved = hypothesis.parent != hypothesis.row and not hypothesis.finished
        mark = "✓" if hypothesis.finished else f"↰{hypothesis.parent + 1}" if moved else ""
        score = f"{'n/a' if isnan(hypothesis.score) else f'{hypothesis.score:.3f}':>8} "
        if width >= _WIDE:
            total = "" if isnan(hypothesis.total) else f"Σ {hypothesis.total:.2f}"
            score += f"{total:>10} {hypothesis.length:>5} tok "
        lead = f"{place:>2} "
        mark = fit_start(mark, 4)
        room = max(width - len(lead) - len(score) - len(mark), 0)
        text = _text_line(hypothesis.text)
        start = tail_start(text, room)
        compared = best is not None and best is not hypothesis and best.start == hypothesis.start
        common = max(_common(text, _text_line(best.text)), start) if best and compared else start
        shared = "…" * (start > 0) + text[start:common]
        style = "$success" if hypothesis.finished else "$foreground italic"
        return (
            (lead, "$text-muted"),
            (score, "$primary"),
            (mark, "$success" if hypothesis.finished else "$warning bold"),
            (shared, "$text-muted italic"),
            (pad(text[common:], room - cell_len(shared)), style),
        )


def _common(text: str, best: str) -> int:
    """Counts the characters that two texts begin with in common, in whole words."""
    pairs = enumerate(zip(text, best, strict=False))
    common = next((i for i, (a, b) in pairs if a != b), min(len(text), len(best)))
    while 0 < common < len(text) and text[common - 1].isascii() and text[common - 1].isalnum():
        common -= 1
    return common


def _text_line(text: str) -> str:
    return one_line(text, tab="→   ").replace("␤", "↵")

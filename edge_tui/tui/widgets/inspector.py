"""Shows why one token was taken, and what might have come in its place."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan
from typing import TYPE_CHECKING, Any

from textual.content import Content
from textual.message import Message
from textual.reactive import reactive

from edge_tui.transcript.fitting import fit_start, wrap_words
from edge_tui.tui.actions import bindings
from edge_tui.tui.ascii_filter import plain
from edge_tui.tui.widgets.ladder_view import LadderView
from edge_tui.tui.widgets.line_panel import LinePanel
from edge_tui.tui.widgets.token_pane import TokenPane
from edge_tui.tui.widgets.token_record import TokenRecord
from edge_tui.util.sanitise import sanitise, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from textual import events

    from edge_tui.engine.explanation import Explanation
    from edge_tui.transcript.transcript import Transcript
    from edge_tui.tui.widgets.line_panel import Line

_HINT = ("Move onto a token (arrows,", "h j k l or a click) to see", "why it was taken.")
_PATIENCE = 0.25
"""Seconds that the ladder of the token before stays while the next one is computed."""
_LONG_TITLE = 60
"""Width from which the title has rank and entropy."""


class Inspector(LinePanel, can_focus=True):
    """Shows one token of a transcript; enter takes the marked alternative.

    What was recorded with the token is there at once; the reason takes its place when the engine has told it.

    Args:
        decode: Text of single tokens (`Engine.decode`).
    """

    DEFAULT_CSS = """
    Inspector { min-width: 30; min-height: 8; }
    """

    BINDINGS = bindings("inspector")

    show_final: reactive[bool] = reactive(False, repaint=False)
    """List the distribution that was drawn from, rather than the model's own."""
    marked: reactive[int] = reactive(0, repaint=False)
    """Line that enter takes."""

    @dataclass
    class MoveToken(Message):
        """Asks for the token `step` further on."""

        step: int

    @dataclass
    class Watch(Message):
        """Asks for a text to be watched, or (with an id) to watch that token no more."""

        token_id: int = -1

    class Turn(Message):
        """Asks what another value would make of this token."""

    def __init__(self, decode: Callable[[Sequence[int]], list[str]], **options: Any) -> None:
        super().__init__(**options)
        self._transcript: Transcript | None = None
        self._index: int | None = None
        self.record = TokenRecord(decode)
        self.ladder = LadderView()
        self._note = ""
        self._waits = False
        """True while the lines of the token before stay."""

    @property
    def index(self) -> int | None:
        """Position of the token shown."""
        return self._index

    def show(self, transcript: Transcript | None, index: int | None) -> None:
        """Shows the record of a token, or (None) how to choose one."""
        moved = transcript is not self._transcript or index != self._index
        self._transcript, self._index = transcript, index
        self.record.read(transcript, index)
        if moved:
            # The next reason mostly comes at once: numbers that come and go between would flicker.
            self._waits = self.ladder.why is not None and self.record.token is not None
            if self._waits:
                self.set_timer(_PATIENCE, self._show_record)
            self.ladder.why, self._note = None, ""
            self.set_reactive(Inspector.marked, self.record.first_other)
        self._write_title()
        self.update_lines()

    def _show_record(self) -> None:
        if self._waits:
            self._waits = False
            self.update_lines()

    def show_reason(self, why: Explanation | None, note: str, watched: Collection[int] = ()) -> None:
        """Shows why the token was taken, or (None) its record with a sentence on why there is no more."""
        token = self._marked_id()
        first = self.ladder.why is None
        self._waits = False
        self._note = note
        self.ladder.watched, self.ladder.own = watched, self.record.own
        self.ladder.why = why
        if why is not None and first:
            self.set_reactive(Inspector.marked, -1)
        self._write_title()
        self.update_lines()
        if why is not None and not first:
            self.marked = self.ladder.number_of(token)

    def refresh_tail(self) -> None:
        """Shows the token again if it has changed, as it can while beams compete."""
        transcript, index = self._transcript, self._index
        if transcript is None or index is None:
            return
        record = transcript.record_at(index) if index < len(transcript) else None
        if record != self.record.number:
            self.show(transcript, index)

    # Drawing.

    def update_lines(self) -> None:
        """Composes the lines again, unless those on the screen stay for the moment."""
        if not self._waits:
            super().update_lines()

    def compose_lines(self, width: int, height: int) -> list[Line]:
        """Writes the ladder; the record and a note where there is none."""
        token = self.record.token
        if token is None:
            return [((fit_start(hint, width), "$text-muted italic"),) for hint in _HINT]
        if self.ladder.why is None:
            note = [
                ((fit_start(text, width), "$text-muted italic"),) for text in wrap_words(self._note, width)
            ]
            return self.record.lines(width, max(height - len(note), 4), self.marked) + note
        head = self._changes(width)
        lines = self.ladder.lines(width, height - len(head), self.marked, detail=self.has_focus)
        if self.marked < 0:
            self.set_reactive(Inspector.marked, self.ladder.first_other())
        return head + [self._in_ascii(line) for line in lines]

    def _in_ascii(self, line: Line) -> Line:
        """Replaces our own marks where the terminal lacks them; the text of a token stays as it is."""
        if not self.screen.has_class("-ascii"):
            return line
        return tuple((text if _is_name(text.strip()) else plain(text), style) for text, style in line)

    def _changes(self, width: int) -> list[Line]:
        """Writes the parameters that have another value from this token on."""
        assert self._transcript is not None
        assert self._index is not None
        sentences = [
            f"▸ {sanitise(change.name)} = {change.value:.4g} from here"
            for change in self._transcript.changes_at(self._index)
        ]
        return [((fit_start(sentence, width), "$warning"),) for sentence in sentences]

    def _write_title(self) -> None:
        """Names the token in the border, with rank and entropy where there is room."""
        token, why = self.record.token, self.ladder.why
        if token is None:
            self.border_title, self.border_subtitle = "token", ""
            return
        name, sign = visible(token.text), " · "
        if self.screen.has_class("-ascii"):
            name, sign = f'"{name[1:-1]}"', " - "
        parts = [f"{'why' if why is not None else 'token'} {name}", f"#{token.index}"]
        if why is not None and self.size.width >= _LONG_TITLE:
            size = why.stages[0].kept + why.stages[0].removed if why.stages else 0
            parts.append(f"rank {token.rank + 1} of {size:,}" if size else f"rank {token.rank + 1}")
            if not isnan(why.entropy):
                parts.append(f"H {why.entropy:.2f} nats")
        self.border_title = Content(sign.join(parts))
        keys = ["o order", "space turn"]
        if self.size.width >= _LONG_TITLE:
            keys = ["o order by p / sum", "space turn a stage", "enter take"]
        self.border_subtitle = Content(sign.join(keys) if why is not None else "")

    def on_resize(self) -> None:
        """Writes title and lines for the new size."""
        self._waits = False
        self._write_title()
        super().on_resize()

    def on_focus(self) -> None:
        """Marks a line."""
        self.update_lines()

    def on_blur(self) -> None:
        """Takes the mark away."""
        self.update_lines()

    # Keys.

    def _lines_to_mark(self) -> int:
        return len(self.record.rows if self.ladder.why is None else self.ladder.marks)

    def _marked_id(self) -> int:
        """Finds the marked token; −1 where another line is marked."""
        lines = self.record.rows if self.ladder.why is None else self.ladder.marks
        return lines[self.marked].id if 0 <= self.marked < len(lines) else -1

    def watch_marked(self) -> None:
        """Moves the mark."""
        self.update_lines()

    def validate_marked(self, marked: int) -> int:
        """Keeps the mark within the lines."""
        return min(max(marked, 0), max(self._lines_to_mark() - 1, 0))

    def watch_show_final(self) -> None:
        """Lists the alternatives by the other probabilities."""
        self.record.show_final = self.show_final
        self.record.read(self._transcript, self._index)
        if self.ladder.why is None:
            self.marked = self.record.first_other
        self.update_lines()

    def action_mark(self, step: int) -> None:
        """Moves the mark by lines."""
        self.marked += step

    def action_token(self, step: int) -> None:
        """Asks for the next or previous token."""
        self.post_message(self.MoveToken(step))

    def action_order(self) -> None:
        """Puts the tokens into the order of their probabilities, or of their sums again."""
        token = self._marked_id()
        self.ladder.order = "p" if self.ladder.order == "sum" else "sum"
        self.update_lines()
        self.marked = self.ladder.number_of(token)

    def action_take(self) -> None:
        """Asks for the marked alternative; unfolds the tokens for which a line stands."""
        if self.record.token is None or self._waits:
            return
        token = self._marked_id()
        if token >= 0:
            self.post_message(TokenPane.TakeAlternative(self.record.token.index, token))
        elif self.ladder.why is not None:
            self.ladder.unfolded = not self.ladder.unfolded
            self.update_lines()

    def action_turn(self) -> None:
        """Asks what another value would make of this token."""
        if self.record.token is not None:
            self.post_message(self.Turn())

    def action_watch(self) -> None:
        """Asks for a text to watch."""
        self.post_message(self.Watch())

    def action_unwatch(self) -> None:
        """Asks to watch the marked token no more."""
        if (token := self._marked_id()) >= 0:
            self.post_message(self.Watch(token))

    def on_click(self, event: events.Click) -> None:
        """Marks the line that was clicked; a second click takes it."""
        offset = event.get_content_offset(self)
        if offset is None or self.record.token is None or self._waits:
            return
        if self.ladder.why is None:
            line = self.record.row_at(*offset)
        else:
            line = self.ladder.mark_at(offset.y - len(self._changes(self.size.width)))
        if line is not None:
            again = self.marked == line
            self.marked = line
            if again:
                self.action_take()


def _is_name(text: str) -> bool:
    """Tells whether a text is a quoted token and nothing else."""
    return text.startswith("“") and text.endswith(("”", "…")) and text.count("“") == 1

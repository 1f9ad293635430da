"""Adds a cursor to the lines of tokens, for thousands of tokens a second."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.message import Message
from textual.reactive import reactive

from edge_tui.transcript.colour_buckets import SURPRISING, buckets
from edge_tui.tui.actions import bindings
from edge_tui.tui.widgets.token_lines import TokenLines

if TYPE_CHECKING:
    from textual import events

    from edge_tui.transcript.transcript import Transcript


class TokenPane(TokenLines, can_focus=True):
    """Shows a growing transcript with a cursor that goes from token to token, by keys or the mouse."""

    BINDINGS = bindings("tokens")

    cursor: reactive[int | None] = reactive[int | None](None, repaint=False)
    """Position of the token under the cursor on the transcript's path, or None."""

    @dataclass
    class CursorMoved(Message):
        """Reports that the cursor is on another token, or (None) on none."""

        index: int | None

    @dataclass
    class Opened(Message):
        """Asks for the alternatives of a token (enter, or a click on the cursor)."""

        index: int

    @dataclass
    class TakeAlternative(Message):
        """Asks to cut the run before `index` and to go on with `token_id` there."""

        index: int
        token_id: int

    @dataclass
    class FollowChanged(Message):
        """Reports that the pane begins or ceases to follow the newest token."""

        following: bool

    _goal_x: int | None = None
    """Column that going up and down aims for."""
    _stays: bool = False
    """True while the cursor moves without scrolling."""
    _keeps_cursor: bool = False
    """True where the cursor was in sight before the size changed."""
    _height_before: int = 0
    """Lines before the size changed."""

    def show(self, transcript: Transcript | None) -> None:
        """Shows another transcript, without a cursor."""
        super().show(transcript)
        self.cursor = None

    def put_cursor(self, index: int) -> None:
        """Puts the cursor on a token without scrolling."""
        self._stays = True
        try:
            self.cursor = index
        finally:
            self._stays = False

    def refresh_tail(self) -> None:
        """Shows the new tokens; the cursor stays within them."""
        super().refresh_tail()
        if self.cursor is not None and self.cursor >= len(self._text):
            self.cursor = len(self._text) - 1 if len(self._text) else None

    def on_resize(self) -> None:
        """Notes whether the cursor is in sight, to keep it there; the lines are wrapped anew after this."""
        first = self._wrap.line_of(self.cursor) if self.cursor is not None and self._text.display else -1
        self._keeps_cursor = 0 <= first - round(self.scroll_y) < self._height_before
        self._height_before = self._height
        self.call_after_refresh(self._show_kept_cursor)

    def _rewrap(self) -> None:
        """Keeps the cursor in sight in the new lines."""
        super()._rewrap()
        self._show_kept_cursor()

    def _show_kept_cursor(self) -> None:
        if self._keeps_cursor and self._coming is None:
            self.show_cursor()

    def watch_following(self, following: bool) -> None:
        """Reports the change."""
        super().watch_following(following)
        if self.is_mounted:
            self.post_message(self.FollowChanged(following))

    @property
    def marked(self) -> int | None:
        """The token that is drawn as the cursor: where the cursor's own token draws nothing, the next."""
        at = self.cursor
        shown = self._text.display
        while at is not None and at < len(shown) - 1 and not shown[at]:
            at += 1
        return at

    def watch_cursor(self, old: int | None, new: int | None) -> None:
        """Repaints the tokens before and under the cursor, and scrolls to it."""
        for token in (old, new):
            if token is not None and token < len(self._text):
                first, last = self._lines_of(token)
                self._refresh_lines(first, last + 1)
        if not self._stays:
            self.show_cursor()
        if self.is_mounted:
            self.post_message(self.CursorMoved(new))

    def _lines_of(self, token: int) -> tuple[int, int]:
        """Finds the first and last line on which a token is drawn, or marked."""
        return self._wrap.line_of(token), self._wrap.line_of(min(token + 2, self._wrap.wrapped_count))

    @property
    def shows_cursor(self) -> bool:
        """True where the token under the cursor is in sight."""
        if self.cursor is None or self.cursor >= self.laid_out:
            return False
        return 0 <= self._wrap.line_of(self.cursor) - round(self.scroll_y) < self._height

    def show_cursor(self) -> None:
        """Scrolls to the cursor, if there is one."""
        if self.cursor is not None and self.cursor < self.laid_out and self.size:
            self._scroll_into_view(self._wrap.line_of(self.cursor))

    def _scroll_into_view(self, first: int) -> None:
        top = round(self.scroll_y)
        if first < top:
            self.scroll_to(y=first, animate=False, immediate=True)
        elif first >= top + self._height:
            self.scroll_to(y=first - self._height + 1, animate=False, immediate=True)

    def _start(self) -> int | None:
        """Finds the first position of the cursor: the last token in sight."""
        if not len(self._text):
            return None
        bottom = min(round(self.scroll_y) + self._height, len(self._wrap)) - 1
        for line in range(bottom, -1, -1):
            pieces = self._wrap.pieces(self._text.display, line)
            if pieces:
                return pieces[-1].token
        return len(self._text) - 1

    def _move(self, step: int) -> None:
        self._goal_x = None
        if self.cursor is None:
            self.cursor = self._start()
        else:
            self.cursor = min(max(self.cursor + step, 0), len(self._text) - 1)

    def action_cursor_left(self) -> None:
        """Goes to the token before."""
        self._move(-1)

    def action_cursor_right(self) -> None:
        """Goes to the token after."""
        self._move(1)

    def action_cursor_up(self) -> None:
        """Goes to the token above."""
        self._move_line(-1)

    def action_cursor_down(self) -> None:
        """Goes to the token below."""
        self._move_line(1)

    def _move_line(self, step: int) -> None:
        """Goes to the token a line above or below, in the column where the first such step began."""
        if self.cursor is None:
            self.cursor = self._start()
            return
        shown, wrap = self._text.display, self._wrap
        marked = self.marked
        assert marked is not None
        line = wrap.line_of(marked)
        if self._goal_x is None:
            x = 0
            for piece in wrap.pieces(shown, line):
                if piece.token == marked:
                    break
                x += piece.cells
            self._goal_x = x
        line += step
        while 0 <= line < len(wrap):
            hit = wrap.hit(shown, line, self._goal_x)
            if hit is not None and hit != self.cursor:
                self.cursor = hit
                return
            line += step

    def action_cursor_first(self) -> None:
        """Goes to the first token."""
        self._goal_x = None
        if len(self._text):
            self.cursor = 0

    def action_live(self) -> None:
        """Leaves the cursor and follows the newest token again."""
        self._goal_x = None
        self.cursor = None
        self.follow()

    def action_surprise(self, step: int) -> None:
        """Jumps to the next (or previous) token in one of the least expected buckets."""
        transcript = self.transcript
        if transcript is None or not len(self._text):
            return
        at = self.cursor
        if step > 0:
            start, stop = (at + 1 if at is not None else 0), len(self._text)
        else:
            start, stop = 0, (at if at is not None else len(self._text))
        found = [
            i
            for i, bucket in enumerate(
                buckets(transcript, self.colour_by, self.show_final, start, stop), start
            )
            if bucket <= SURPRISING
        ]
        if found:
            self._goal_x = None
            self.cursor = found[0] if step > 0 else found[-1]
        else:
            self.app.bell()

    def action_open(self) -> None:
        """Asks for the alternatives of the token under the cursor."""
        if self.cursor is None:
            self.cursor = self._start()
        if self.cursor is not None:
            self.post_message(self.Opened(self.cursor))

    def action_runner_up(self) -> None:
        """Asks for the likeliest token other than the one under the cursor."""
        if self.transcript is None or self.cursor is None or self.cursor >= len(self.transcript):
            return
        token = self.transcript.token(self.cursor)
        other = next((alternative.id for alternative in token.top if alternative.id != token.id), None)
        if other is not None:
            self.post_message(self.TakeAlternative(self.cursor, other))

    def on_click(self, event: events.Click) -> None:
        """Goes to the token that was clicked, or opens the one under the cursor; on the cue to the end."""
        offset = event.get_content_offset(self)
        if offset is None or not len(self._text) or self.text_selection is not None:
            return
        if offset.y == self._height - 1 and not self.following and offset.x >= self._line_width - 7:
            self.action_live()
            return
        hit = self._wrap.hit(self._text.display, round(self.scroll_y) + offset.y, offset.x)
        if hit is None:
            return
        if hit == self.cursor:
            self.post_message(self.Opened(hit))
        self._goal_x = None
        self.cursor = hit

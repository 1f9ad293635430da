"""Lists stored runs, and makes only the lines in sight, so that ten thousand open at once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.cells import cell_len
from textual.message import Message
from textual.reactive import reactive

from edge_tui.tui.widgets.line_panel import LinePanel, fit_start, pad
from edge_tui.util.formatting import clip, compact_count
from edge_tui.util.sanitise import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from textual import events

    from edge_tui.history.runs import Entry
    from edge_tui.tui.widgets.line_panel import Line

_WIDE = 84
"""Least width that shows the model as well."""
_CURSOR, _GONE = "$block-cursor-foreground on $block-cursor-background", "$text-muted strike"
_MARKS = {"running": "…", "finished": " ", "failed": "✗", "interrupted": "↯"}


class RunList(LinePanel):
    """Draws one line for each run: time, strategy, length, prompt. The owner moves the cursor."""

    cursor: reactive[int] = reactive(0, repaint=False)
    """Line under the cursor."""

    class Moved(Message):
        """Reports that the cursor is on another run, or on none."""

    class Opened(Message):
        """Asks to open the run under the cursor, which was clicked again."""

    def __init__(self, titles: Mapping[str, str], *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._titles = titles
        self.entries: Sequence[Entry] = ()
        self.marked_for_delete: set[int] = set()
        """Runs that are about to be deleted."""
        self.marked: int | None = None
        """The run that another one is to be compared with."""
        self._top = 0

    @property
    def entry(self) -> Entry | None:
        """The run under the cursor."""
        return self.entries[self.cursor] if self.entries else None

    def show(self, entries: Sequence[Entry]) -> None:
        """Shows other runs; stays on the same one if it is among them."""
        before = self.entry
        ids = {entry.id: number for number, entry in enumerate(entries)}
        self.entries = entries
        self.set_reactive(RunList.cursor, ids.get(before.id, 0) if before is not None else 0)
        self.update_lines()
        here = self.entry
        if (here and here.id) != (before and before.id):
            self.post_message(self.Moved())

    def validate_cursor(self, cursor: int) -> int:
        """Keeps the cursor within the list."""
        return min(max(cursor, 0), max(len(self.entries) - 1, 0))

    def watch_cursor(self) -> None:
        """Scrolls to the cursor, and reports its run."""
        self.update_lines()
        self.post_message(self.Moved())

    def compose_lines(self, width: int, height: int) -> list[Line]:
        """Writes the runs in sight."""
        self._top = max(min(self._top, self.cursor, len(self.entries) - height), self.cursor - height + 1, 0)
        shown = self.entries[self._top : self._top + height]
        return [self._line(entry, self._top + y == self.cursor, width) for y, entry in enumerate(shown)]

    def _line(self, entry: Entry, here: bool, width: int) -> Line:
        """Writes state, time, strategy, length, model and prompt of a run."""
        title = one_line(self._titles.get(entry.strategy, entry.strategy))
        mark = "◆" if entry.id == self.marked else _MARKS[entry.state]
        parts = [
            (f"{mark} ", "$warning"),
            (f"{short_time(entry.created)}  ", "$text-muted"),
            (f"{fit_start(title, 11)} ", "$primary"),
            (f"{compact_count(entry.tokens):>5}  ", "$text-muted"),
        ]
        if width >= _WIDE:
            model = one_line(entry.model.rpartition("/")[2])
            parts.append((f"{fit_start(model, 16)}  ", "$text-muted"))
        room = max(width - sum(cell_len(text) for text, _ in parts), 0)
        prompt = pad(clip(one_line(entry.prompt), room), room)
        parts.append((prompt, _GONE if entry.id in self.marked_for_delete else ""))
        # Under the cursor all of it is one colour.
        return tuple((text, _CURSOR if here and style != _GONE else style) for text, style in parts)

    def on_click(self, event: events.Click) -> None:
        """Goes to the run that was clicked; a second click opens it."""
        offset = event.get_content_offset(self)
        if offset is None or self._top + offset.y >= len(self.entries):
            return
        again = self.cursor == self._top + offset.y
        self.cursor = self._top + offset.y
        if again:
            self.post_message(self.Opened())

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Goes three runs up."""
        event.stop()
        self.cursor -= 3

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Goes three runs down."""
        event.stop()
        self.cursor += 3


def short_time(created: float, now: float | None = None) -> str:
    """Writes a moment in eleven cells: day and time within half a year, else the date."""
    local = time.localtime(created)
    recent = abs((time.time() if now is None else now) - created) < 183 * 86_400
    return time.strftime("%m-%d %H:%M" if recent else "%Y-%m-%d ", local)

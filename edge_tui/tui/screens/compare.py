"""Compares two runs side by side, each with its cursor on the first token that differs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.containers import Container, Vertical
from textual.content import Content
from textual.widgets import Static

from edge_tui.history.compare import compare
from edge_tui.tui.actions import bindings
from edge_tui.tui.screens.dialog import Dialog
from edge_tui.tui.widgets.line_panel import fit_start
from edge_tui.tui.widgets.run_list import short_time
from edge_tui.tui.widgets.token_pane import TokenPane
from edge_tui.util.formatting import clip
from edge_tui.util.sanitise import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual import events
    from textual.widget import Widget

    from edge_tui.history.runs import StoredRun
    from edge_tui.transcript.transcript import Transcript

BESIDE = 110
"""Least width that sets the runs beside each other, else one above the other."""
_SETTINGS = 6
"""Lines of settings at most."""


class CompareScreen(Dialog[None]):
    """Shows the settings that differ, then the two runs in their colours.

    Args:
        first: A run and its tokens.
        second: Another.
    """

    BINDINGS = bindings("compare")
    AUTO_FOCUS = "TokenPane"
    heading = "compare"
    hint = "tab the other one · d the difference · esc leave"

    def __init__(self, first: tuple[StoredRun, Transcript], second: tuple[StoredRun, Transcript]) -> None:
        super().__init__()
        self._runs = (first, second)
        self.found = compare(*first, *second)
        self.panes = (TokenPane("no tokens"), TokenPane("no tokens"))
        self._settings_lines = Static(id="settings")

    def content(self) -> Iterable[Widget]:
        """Lists the line of differing settings, then a pane for each run."""
        sides = [Vertical(pane, classes="side") for pane in self.panes]
        for (stored, _), side in zip(self._runs, sides, strict=True):
            title = f"{short_time(stored.entry.created).strip()} · {stored.entry.strategy}"
            side.border_title = Content(one_line(title))
        return self._settings_lines, Container(*sides, id="pair")

    def on_mount(self) -> None:
        """Shows both runs, at the first token that differs."""
        for (_, transcript), pane in zip(self._runs, self.panes, strict=True):
            pane.show(transcript)
        self.call_after_refresh(self.action_difference)

    def on_resize(self, event: events.Resize) -> None:
        """Puts the panes side by side where there is room."""
        self.set_class(event.size.width >= BESIDE, "-beside")
        self._settings_lines.update(self._settings(int(event.size.width * 0.96) - 6))

    def _settings(self, width: int) -> Content:
        parts = [(self.found.verdict, "$warning" if self.found.diverges else "$success")]
        shown = self.found.settings[:_SETTINGS]
        room = min(max((width - 24) // 2, 8), max((len(each.first) for each in shown), default=0))
        for each in shown:
            name = clip(one_line(each.name), 18)
            parts += [(f"\n{name:<19}", "$text-muted"), (fit_start(_value(each.first), room), "")]
            parts += [("  →  ", "$text-muted"), (clip(_value(each.second), width - 24 - room), "")]
        if more := len(self.found.settings) - len(shown):
            parts.append((f"  and {more} more", "$text-muted"))
        if not shown:
            parts.append(("\nThe settings are the same.", "$text-muted"))
        return Content.assemble(*parts)

    def action_difference(self) -> None:
        """Puts both cursors on the first token that differs."""
        for pane in self.panes:
            pane.refresh_tail()
            pane.action_cursor_first()
            pane.cursor = self.found.common_length if self.found.diverges else None


def _value(value: str) -> str:
    return one_line(" ".join(value.split())) or "–"

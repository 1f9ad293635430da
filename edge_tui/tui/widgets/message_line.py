"""Shows the newest message in the line above the keys."""

from __future__ import annotations

from typing import Literal

from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from edge_tui.util.formatting import clip
from edge_tui.util.sanitise import one_line

Kind = Literal["info", "good", "warning", "error"]
_MARK: dict[str, tuple[str, str]] = {
    "info": (" · ", "$text-muted"),
    "good": (" ✓ ", "$success"),
    "warning": (" ! ", "$warning"),
    "error": (" ✗ ", "$error"),
}


class MessageLine(Widget):
    """Shows one sentence; the tooltip has one that is too long for the line."""

    DEFAULT_CSS = """
    MessageLine { height: 1; }
    """

    message: reactive[str] = reactive("")
    kind: reactive[Kind] = reactive[Kind]("info")

    def say(self, message: str, kind: Kind = "info") -> None:
        """Shows a sentence, made safe to show."""
        self.message = one_line(message)
        self.kind = kind
        # A string would be parsed as markup.
        self.tooltip = Content(self.message) if len(self.message) > self.size.width - 3 else None

    def render(self) -> Content:
        """Writes mark and sentence, cut to the line."""
        if not self.message:
            return Content("")
        mark, style = _MARK[self.kind]
        body = "$text-muted" if self.kind == "info" else "$foreground" if self.kind == "good" else style
        return Content.assemble((mark, style), (clip(self.message, self.size.width - 4), body))

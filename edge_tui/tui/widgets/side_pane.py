"""Shows the tokens of one of two runs, those that both share dimmed."""

from __future__ import annotations

from edge_tui.tui.actions import bindings
from edge_tui.tui.widgets.token_pane import TokenPane


class SidePane(TokenPane, inherit_bindings=False):
    """Has a cursor as a token pane has; other keys are the screen's."""

    BINDINGS = bindings("side")

    def go_to(self, index: int | None) -> None:
        """Puts the cursor on a token, or on the last one before it, and scrolls there."""
        length = len(self.transcript) if self.transcript is not None else 0
        self.cursor = min(index, length - 1) if index is not None and length else None
        self.show_cursor()

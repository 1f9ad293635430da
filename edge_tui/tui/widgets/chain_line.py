"""Shows the stages of a strategy in order, in one line or two."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content
from textual.widget import Widget

from edge_tui.tui.widgets.fitted_text import fit_lines
from edge_tui.util.sanitise import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_tui.tui.chain_editor import Line


class ChainLine(Widget):
    """Writes titles of stages with arrows between them; what does nothing is muted."""

    DEFAULT_CSS = """
    ChainLine { height: auto; max-height: 2; padding: 0 1; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._stages: Sequence[Line] = ()

    def show(self, stages: Sequence[Line]) -> None:
        """Shows other stages."""
        if stages != self._stages:
            self._stages = stages
            self.refresh(layout=True)

    def get_content_height(self, container: object, viewport: object, width: int) -> int:
        """Returns the lines of all stages."""
        return len(self._content(" → ").wrap(max(width, 1)))

    def render(self) -> Content:
        """Writes as much as there is room for; without spaces around arrows where that is all."""
        width, height = self.content_size
        loose = self._content(" → ")
        tight = len(loose.wrap(max(width, 1))) > height
        return fit_lines(self._content("→") if tight else loose, width, height)

    def _content(self, arrow: str) -> Content:
        parts: list[str | tuple[str, str]] = []
        for line in self._stages:
            style = "$text-muted" if line.is_off else "$foreground" if line.link else "$primary"
            parts += [(arrow, "$text-muted")] if parts else []
            parts.append((one_line(line.title), style))
        return Content.assemble(*parts)

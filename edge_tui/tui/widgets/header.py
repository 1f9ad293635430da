"""Shows the first line: model, precision, device, and the engine's state."""

from __future__ import annotations

from rich.cells import cell_len
from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from edge_tui.util.formatting import clip
from edge_tui.util.sanitise import one_line

_DOT = {"idle": "$success", "busy": "$warning", "error": "$error"}


class HeaderBar(Widget):
    """Draws one line, again when the model or the state changes."""

    DEFAULT_CSS = """
    HeaderBar { height: 1; background: $panel; color: $foreground; }
    """

    model: reactive[str] = reactive("")
    facts: reactive[tuple[str, ...]] = reactive(())
    state: reactive[str] = reactive("starting")
    kind: reactive[str] = reactive("busy")

    def render(self) -> Content:
        """Writes the model with its facts to the left, the state to the right."""
        width = self.size.width
        right_text = clip(one_line(self.state), max(width // 2, 12))
        right = [(" ● ", _DOT[self.kind]), (right_text, "$foreground"), (" ", "")]
        room = width - cell_len(right_text) - 4
        left: list[tuple[str, str]] = [(" edge-tui", "$primary bold"), ("  ", "")]
        tail = "".join(f" · {one_line(fact)}" for fact in self.facts)
        name = clip(one_line(self.model), max(room - 11 - cell_len(tail), min(room - 11, 10), 1))
        tail = clip(tail, room - 11 - cell_len(name))
        left += [(name, "$foreground bold"), (tail, "$text-muted")]
        used = sum(cell_len(text) for text, _ in left)
        return Content.assemble(*left, " " * max(room - used, 0), *right)

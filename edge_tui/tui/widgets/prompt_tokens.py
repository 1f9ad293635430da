"""Shows the tokens of a prompt: those of its turns in the colours of an answer, the template's dim."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from edge_tui.transcript.read_prompt import transcript_of
from edge_tui.tui.actions import bindings
from edge_tui.tui.widgets.token_pane import TokenPane

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.style import Style

    from edge_tui.engine.events import PromptRead

_TEMPLATE = "prompt-tokens--template"


class PromptTokens(TokenPane, inherit_bindings=False):
    """Shows a prompt with a cursor; without one the place after the last token is meant.

    Args:
        texts_of: Gives the names of control tokens.
    """

    BINDINGS = bindings("prompt")

    grows = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {_TEMPLATE}
    DEFAULT_CSS = """
    PromptTokens > .prompt-tokens--template { color: $text-disabled; }
    """

    def __init__(self, texts_of: Callable[[Sequence[int]], list[str]]) -> None:
        super().__init__()
        self.folding = False  # what is folded away is read all the same
        self._texts_of = texts_of
        self._roles: tuple[str, ...] = ()
        self._template_style: Style | None = None

    def show_prompt(self, read: PromptRead) -> None:
        """Shows a prompt from its end, without a cursor."""
        self._roles = read.roles
        self.show(transcript_of(read, self._texts_of))

    def style_of(self, token: int, bucket: int) -> Style:
        """Returns the style of a token: dim for what the template wrote."""
        if not self._roles or self._roles[token]:
            return super().style_of(token, bucket)
        if self._template_style is None:
            self._template_style = self.get_component_rich_style(_TEMPLATE)
        return self._template_style

    def notify_style_update(self) -> None:
        """Computes the styles anew."""
        super().notify_style_update()
        self._template_style = None

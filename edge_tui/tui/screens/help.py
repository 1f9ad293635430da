"""What the keys do and what the colours mean, from the registry of actions."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from edge_tui.transcript.colour_buckets import LEGENDS
from edge_tui.tui.actions import Scope, key_help, key_table
from edge_tui.tui.widgets.inspector import Inspector
from edge_tui.tui.widgets.token_pane import TokenPane

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from textual.app import ComposeResult

EXTRA: dict[Scope, list[Binding]] = {"tokens": TokenPane.BINDINGS, "inspector": Inspector.BINDINGS}
"""Bindings that widgets declare themselves."""
_LEAD = 28
"""Cells before the sentence."""


def keys_as_markdown() -> str:
    """Lists every key of the app as a Markdown table, for docs/keys.md."""
    return key_table(EXTRA)


class HelpScreen(ModalScreen[None]):
    """Scrolls; any of esc, ?, q leaves.

    Args:
        heard: Scopes whose keys are heard where the user is, the nearest first.
        own: The user's keys by binding id.
    """

    BINDINGS: ClassVar[list[Binding]] = [  # type: ignore[assignment]
        Binding("escape,question_mark,f1,q", "dismiss", "leave", tooltip="Back to the workbench."),
    ]

    def __init__(self, heard: Sequence[Scope] = (), own: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._heard = heard
        self._own = own or {}

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog") as dialog:
            dialog.border_title = "help"
            dialog.border_subtitle = "↑↓ scroll · esc leave"
            yield Static(id="keys")
            yield Static(self._colours())

    def on_resize(self) -> None:
        width = self.query_one("#keys").container_size.width
        self.query_one("#keys", Static).update(self._keys(max(width - 4, 40)))

    @staticmethod
    def _colours() -> Content:
        _, steps = LEGENDS["probability"]
        parts: list[tuple[str, str]] = [("\nProbability of a token\n", "$primary bold"), ("  ", "")]
        for i, step in enumerate(steps):
            parts += [("█ ", f"$token-{i}"), (f"{step}  ", "$foreground")]
        parts.append(
            (
                "\n  raw: under the model itself; final: in the distribution the strategy drew from\n",
                "$text-muted",
            )
        )
        return Content.assemble(*parts)

    def _keys(self, width: int) -> Content:
        parts: list[tuple[str, str]] = []
        for number, (heading, lines) in enumerate(key_help(EXTRA, self._own, self._heard).items()):
            if number == len(self._heard):
                parts.append(("\nElsewhere\n", "$text-muted italic"))
            here = ("Here: ", "$accent bold") if number < len(self._heard) else ("", "")
            parts += [("\n" if number else "", ""), here, (f"{heading}\n", "$primary bold")]
            for line in lines:
                indent = "\n" + " " * _LEAD
                said = indent.join(wrap(line.help, width - _LEAD))
                parts += [
                    (f"  {line.keys:<13}", "$accent bold"),
                    (f"{line.label:<12} ", "$foreground"),
                    (f"{said}\n", "$text-muted"),
                ]
        return Content.assemble(*parts)

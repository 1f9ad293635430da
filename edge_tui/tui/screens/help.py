"""Explains the keys, from the registry of actions, and the colours."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING

from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from edge_tui.transcript.colour_buckets import LEGENDS
from edge_tui.tui.actions import bindings
from edge_tui.tui.key_help import key_help
from edge_tui.tui.screens.dialog import Dialog

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from textual.widget import Widget

    from edge_tui.tui.actions import Scope

_LEAD = 28
"""Cells before the sentence."""


class HelpScreen(Dialog[None]):
    """Shows the keys and colours, and scrolls.

    Args:
        scopes: Scopes whose keys work where the user is, the nearest first.
        own: The user's keys by binding id.
    """

    BINDINGS = bindings("help")

    heading = "help"
    hint = "↑↓ scroll · esc leave"

    def __init__(self, scopes: Sequence[Scope] = (), own: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._scopes = scopes
        self._own = own or {}
        self._key_lines = Static(id="keys")

    def make_box(self) -> Widget:
        """Makes a box that scrolls."""
        return VerticalScroll(classes="dialog")

    def content(self) -> Iterable[Widget]:
        """Lists the keys, then the colours."""
        return self._key_lines, Static(self._colours())

    def on_resize(self) -> None:
        """Writes the keys for the new width."""
        self._key_lines.update(self._keys(max(self._key_lines.container_size.width - 4, 40)))

    @staticmethod
    def _colours() -> Content:
        parts: list[tuple[str, str]] = [("\nColours of a token\n", "$primary bold")]
        for name, steps in LEGENDS.values():
            parts.append((f"  {name:<8}", "$text-muted"))
            for i, step in enumerate(steps):
                parts += [("█ ", f"$token-{i}"), (f"{step:<7}", "$foreground")]
            parts.append(("\n", ""))
        kinds = (
            "  raw: p under the model itself; final: p in the distribution the strategy drew from\n"
            "  nats: entropy of the model; margin: best sum less the second, in nats\n"
        )
        parts.append((kinds, "$text-muted"))
        return Content.assemble(*parts)

    def _keys(self, width: int) -> Content:
        parts: list[tuple[str, str]] = []
        for number, (heading, lines) in enumerate(key_help(self._own, self._scopes).items()):
            if number == len(self._scopes):
                parts.append(("\nElsewhere\n", "$text-muted italic"))
            here = ("Here: ", "$accent bold") if number < len(self._scopes) else ("", "")
            parts += [("\n" if number else "", ""), here, (f"{heading}\n", "$primary bold")]
            for line in lines:
                sentence = ("\n" + " " * _LEAD).join(wrap(line.help, width - _LEAD))
                parts += [(f"  {line.keys:<13}", "$accent bold"), (f"{line.label:<12} ", "$foreground")]
                parts.append((f"{sentence}\n", "$text-muted"))
        return Content.assemble(*parts)
